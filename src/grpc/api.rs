//! What every service of the contract is served by: it takes the call's context off the wire and hands the call to the
//! pipeline.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use super::deadline::Deadline;
use super::status;
use crate::contract::{Method, Received};
use crate::domain::caller::{Caller, PeerNames};
use crate::domain::drain::Drain;
use crate::domain::limits::{ACTOR_CHARS_MAX, REQUEST_MS_MAX};
use crate::gateway::{Code, Context, Fault, Gateway, Presence, Reason, Retry};
use crate::identity::Stranger;
use crate::telemetry::call::Notes;

/// The metadata in which a caller says for whom it acts.
const ACTOR: &str = "tollgate-actor";

/// The server behind every service; cheap to clone.
#[derive(Clone, Debug)]
pub struct Api {
    /// The pipeline.
    pub gateway: Arc<Gateway>,
    /// Tells streams when to end.
    pub drain: Drain,
    /// Room for uploads.
    pub uploads: Arc<Semaphore>,
}

/// Where a call came from, put into the request by the connection.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// Address of the other end.
    pub address: String,
    /// The names in the client certificate that the TLS handshake verified.
    pub certificate: Option<Arc<PeerNames>>,
}

impl Api {
    /// Serves one annotated RPC.
    pub(super) async fn unary<M: Method>(
        &self,
        request: Request<Received<M::Request>>,
    ) -> Result<Response<M::Response>, Status> {
        let context = context(&request)?;
        let answer = Arc::clone(&self.gateway).call::<M>(context, request.into_inner()).await;
        answer.map(Response::new).map_err(|fault| status::of(&fault))
    }
}

/// What the pipeline has to know of a request besides its message.
///
/// # Errors
/// UNAUTHENTICATED when nobody identified the caller, which the layer in front does for every service of the contract.
pub fn context<T>(request: &Request<T>) -> Result<Context, Status> {
    let extensions = request.extensions();
    let caller =
        extensions.get::<Caller>().cloned().ok_or_else(|| status::of(&unauthenticated(Stranger::Missing)))?;
    let notes = extensions.get::<Notes>().cloned().unwrap_or_default();
    Ok(Context {
        caller,
        actor: actor(request.metadata()),
        peer: extensions.get::<Peer>().cloned().unwrap_or_default().address,
        deadline: extensions.get::<Deadline>().copied().unwrap_or_default().0,
        trace_id: notes.trace_id(),
        notes,
        presence: Presence::default(),
    })
}

/// What the caller says for whom it acts, made fit to be shown: no control characters, and not too long.
fn actor(metadata: &MetadataMap) -> String {
    let said = metadata.get(ACTOR).and_then(|said| said.to_str().ok()).unwrap_or_default();
    said.chars().filter(|char| !char.is_control()).take(ACTOR_CHARS_MAX).collect()
}

/// The answer to a caller that nobody knows.
#[must_use]
pub fn unauthenticated(why: Stranger) -> Fault {
    let message = match why {
        Stranger::Missing => {
            "no credential; send `authorization: Bearer TOKEN` with a token for this gateway, or a client certificate"
                .to_owned()
        }
        _ => format!("the credential proves no caller of this gateway: `{why}`"),
    };
    Fault::new(Code::Unauthenticated, Reason::Unauthenticated, message)
        .with("credential", why.as_str())
        .retry(Retry::Never)
}

/// The answer to a request whose messages do not arrive.
#[must_use]
pub fn too_slow() -> Status {
    let message = format!("the request did not arrive within {REQUEST_MS_MAX} ms; nothing was done");
    status::of(&Fault::new(Code::DeadlineExceeded, Reason::DeadlineExceeded, message))
}
