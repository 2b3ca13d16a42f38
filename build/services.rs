//! Writes tonic's server side: the servers, whose requests keep track of unknown fields, and the implementations that
//! hand every annotated RPC to the pipeline and every other one to the function that is written for it.

use std::path::Path;

use super::model::{Contract, Method, Service, rust, snake};

/// tonic's server modules, one file per service.
pub(crate) fn servers(contract: &Contract, out: &Path) {
    let services: Vec<tonic_build::manual::Service> = contract.services.iter().map(server).collect();
    tonic_build::manual::Builder::new().build_client(false).out_dir(out).compile(&services);
}

fn server(service: &Service) -> tonic_build::manual::Service {
    let mut builder = tonic_build::manual::Service::builder().name(&service.name).package("tollgate.v1");
    for method in &service.methods {
        let mut rpc = tonic_build::manual::Method::builder()
            .name(snake(&method.name))
            .route_name(&method.name)
            .input_type(request(method))
            .output_type(response(method))
            .codec_path(codec(method));
        if method.descriptor.is_client_streaming() {
            rpc = rpc.client_streaming();
        }
        if method.descriptor.is_server_streaming() {
            rpc = rpc.server_streaming();
        }
        builder = builder.method(rpc.build());
    }
    builder.build()
}

fn codec(method: &Method) -> &'static str {
    if method.descriptor.is_server_streaming() {
        "crate::grpc::codec::StreamCodec"
    } else {
        "crate::grpc::codec::Codec"
    }
}

fn request(method: &Method) -> String {
    format!("crate::contract::Received<{}>", rust(method.descriptor.input().name()))
}

/// What is streamed to many may be encoded before.
fn response(method: &Method) -> String {
    let message = rust(method.descriptor.output().name());
    if method.descriptor.is_server_streaming() {
        format!("crate::contract::Sent<{message}>")
    } else {
        message
    }
}

/// The trait implementations, and the list of services for the router.
pub(crate) fn implementations(contract: &Contract) -> String {
    let mut out = String::new();
    for service in &contract.services {
        let file = format!("tollgate.v1.{}.rs", service.name);
        out.push_str(&format!("include!(concat!(env!(\"OUT_DIR\"), \"/{file}\"));\n"));
        out.push_str(&implementation(service));
    }
    out.push_str(&router(contract));
    out
}

fn router(contract: &Contract) -> String {
    let added: String = contract
        .services
        .iter()
        .map(|service| {
            let (name, module) = (&service.name, snake(&service.name));
            format!(
                "    routes.add_service({module}_server::{name}Server::new(api.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX).max_encoding_message_size(RESPONSE_BYTES_MAX));\n"
            )
        })
        .collect();
    let names: Vec<String> =
        contract.services.iter().map(|service| format!("\"tollgate.v1.{}\"", service.name)).collect();
    format!(
        "/// Full names of the contract's services.\npub const SERVICES: &[&str] = &[{}];\n\n/// Adds every service of the contract.\npub fn add_services(routes: &mut tonic::service::RoutesBuilder, api: &Api) {{\n{added}}}\n",
        names.join(", ")
    )
}

fn implementation(service: &Service) -> String {
    let methods: String = service.methods.iter().map(|method| rpc(service, method)).collect();
    format!(
        "#[tonic::async_trait]\nimpl {module}_server::{name} for Api {{\n{methods}}}\n",
        module = snake(&service.name),
        name = service.name
    )
}

fn rpc(service: &Service, method: &Method) -> String {
    let (rpc, module) = (snake(&method.name), snake(&service.name));
    let message = request(method);
    let (input, mut output) = (
        if method.descriptor.is_client_streaming() {
            format!("tonic::Streaming<{message}>")
        } else {
            message
        },
        response(method),
    );
    let mut stream = String::new();
    if method.descriptor.is_server_streaming() {
        stream = format!("    type {0}Stream = by_hand::{module}::{0}Stream;\n", method.name);
        output = format!("Self::{}Stream", method.name);
    }
    let body = if method.stripe.is_some() && !method.descriptor.is_client_streaming() {
        format!("self.unary::<crate::contract::{}>(request).await", method.name)
    } else {
        format!("by_hand::{module}::{rpc}(self, request).await")
    };
    format!(
        "{stream}    async fn {rpc}(&self, request: tonic::Request<{input}>) -> std::result::Result<tonic::Response<{output}>, tonic::Status> {{\n        {body}\n    }}\n"
    )
}
