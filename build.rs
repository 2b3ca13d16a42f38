//! Turns `proto/` into the program: messages, form encoding, checks, decoding, the method table, the services and what
//! policies can speak of.
//!
//! It knows types and options only, never a service or a field by name; what an RPC means stands in the contract.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::disallowed_methods,
    reason = "a build script stops the build by panicking"
)]

use std::path::{Path, PathBuf};
use std::{env, fs, io};

use prost::Message;
use prost_reflect::DescriptorPool;

#[path = "build/decode.rs"]
mod decode;
#[path = "build/form.rs"]
mod form;
#[path = "build/methods.rs"]
mod methods;
#[path = "build/model.rs"]
mod model;
#[path = "build/policy.rs"]
mod policy;
#[path = "build/rules.rs"]
mod rules;
#[path = "build/services.rs"]
mod services;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=build");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let files = proto_files(Path::new("proto"))?;
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_source_info(true).include_imports(true).open_files(&files)?;

    // tonic's builder ignores a path for the encoded set, which reflection and the command line need.
    let encoded = compiler.encode_file_descriptor_set();
    fs::write(out.join("descriptors.binpb"), &encoded)?;

    let mut messages = prost_build::Config::new();
    messages.enable_type_names();
    messages.boxed(".tollgate.v1.StripeObject");
    tonic_prost_build::configure()
        .build_server(false)
        .btree_map(".")
        .bytes(".tollgate.v1.UploadFileRequest")
        .out_dir(&out)
        .compile_fds_with_config(prost_types::FileDescriptorSet::decode(encoded.as_slice())?, messages)?;

    let pool = DescriptorPool::decode(encoded.as_slice())?;
    let contract = model::Contract::read(&pool)?;
    let generated = out.join("contract");
    fs::create_dir_all(&generated)?;
    let mut index = String::new();
    for service in &contract.services {
        let file = generated.join(format!("{}.rs", model::snake(&service.name)));
        fs::write(&file, methods::service(service)?)?;
        index.push_str(&format!("include!({:?});\n", file.display().to_string()));
    }
    index.push_str(&methods::table(&contract));
    index.push_str(&form::all(&contract));
    index.push_str(&rules::all(&contract));
    index.push_str(&decode::all(&contract));
    fs::write(out.join("contract.rs"), index)?;

    let (schema, actions) = policy::all(&contract)?;
    fs::write(out.join("policy.cedarschema"), schema)?;
    fs::write(out.join("policy.rs"), actions)?;

    services::servers(&contract, &out);
    fs::write(out.join("services.rs"), services::implementations(&contract))?;
    Ok(())
}

/// Every `.proto` file below `folder`, in a stable order.
fn proto_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(proto_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
