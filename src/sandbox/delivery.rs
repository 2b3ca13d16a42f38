//! The webhook sender: signs due deliveries, posts them and notes how that went. It must never hold up a request.
//! Source: <https://docs.stripe.com/webhooks>.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use sha2::Sha256;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::fault::Kind;
use super::object::{self, text};
use super::outbox::{self, Delivery, Target};
use super::schedule::Change;
use super::state::State;
use super::{Shared, thin, webhook_endpoints};

/// Deliveries under way at the same time.
const UNDER_WAY_MAX: usize = 16;

/// Longest wait for a target's answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a delivery is held back so that later ones overtake it, in sandbox time, unless the fault says otherwise.
const HELD_BACK: Duration = Duration::from_secs(2);

/// Most bytes read of an answer, whose body means nothing.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// What the sender calls itself.
const USER_AGENT: &str = "Stripe/1.0 (+https://stripe.com/docs/webhooks)";

/// Signs in place of the target's secrets when a fault asks for a wrong signature.
const WRONG_SECRET: &str = "whsec_not_the_secret_of_this_endpoint";

/// Signs the scheme `v0`, which test events carry as well and receivers have to ignore.
const DECOY_SECRET: &str = "v0";

/// Why a try failed.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("target cannot be reached; the sandbox delivers to `http` addresses only")]
    Connect(#[from] hyper_util::client::legacy::Error),
    #[error("request cannot be formed")]
    Request(#[from] http::Error),
    #[error("no answer in time")]
    Timeout(#[from] tokio::time::error::Elapsed),
    #[error("answered with status {0}")]
    Status(StatusCode),
}

/// Keeps connections to targets open between deliveries.
type Sender = Client<HttpConnector, Full<Bytes>>;

/// One try, ready to go.
#[derive(Debug)]
struct Post {
    number: u64,
    url: String,
    signature: String,
    body: Bytes,
    /// Sent a second time, as happens at least once in a while.
    twice: bool,
}

/// Sends due deliveries until told to stop; those cut short then are sent again after a restart.
pub(super) async fn run(shared: Arc<Shared>, mut stopped: watch::Receiver<bool>) {
    let emitted = Arc::clone(&shared.state().emitted);
    let sender: Sender =
        Client::builder(TokioExecutor::new()).pool_max_idle_per_host(UNDER_WAY_MAX).build_http();
    let mut under_way = JoinSet::new();
    loop {
        let woken = emitted.notified();
        tokio::pin!(woken);
        // Registered before looking, so that what is appended meanwhile is not missed.
        woken.as_mut().enable();
        while under_way.len() < UNDER_WAY_MAX
            && let Some(post) = next(&mut shared.state())
        {
            under_way.spawn(attempt(Arc::clone(&shared), sender.clone(), post));
        }
        tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => break,
            () = woken => {}
            Some(_) = under_way.join_next() => {}
        }
    }
    under_way.shutdown().await;
}

/// The next due delivery that is to be sent, after the faults took theirs.
fn next(state: &mut State) -> Option<Post> {
    loop {
        let (number, delivery) = state.kept.outbox.take()?;
        let event = state.get("event", &delivery.event).cloned();
        let (Some(event), Some((url, secrets))) = (event, address(state, &delivery.to)) else {
            // Disabled or deleted meanwhile, which ends the tries.
            state.kept.outbox.finish(number);
            continue;
        };
        let fault = state.take_delivery_fault(text(&event, "type"), delivery.held);
        let kind = fault.as_ref().map(|fault| fault.kind);
        match kind {
            Some(Kind::WebhookDrop) => {
                state.kept.outbox.finish(number);
                continue;
            }
            Some(Kind::WebhookReorder) => {
                state.kept.outbox.finish(number);
                let wait = fault.and_then(|fault| fault.ms).map_or(HELD_BACK, Duration::from_millis);
                state.schedule(wait, Change::Deliver(Delivery { held: true, ..delivery }));
                continue;
            }
            _ => {}
        }
        let wrong = [WRONG_SECRET.to_owned()];
        let secrets = if kind == Some(Kind::WebhookCorruptSignature) { &wrong[..] } else { &secrets };
        let shown = match delivery.to {
            Target::Thin(_) => thin::notification(&event),
            Target::Url(_) | Target::Endpoint(_) => object::shown(&event),
        };
        let body = format!("{shown:#}");
        let signature = signature(secrets, state.real_seconds(), body.as_bytes());
        let twice = kind == Some(Kind::WebhookDuplicate);
        return Some(Post { number, url, signature, body: Bytes::from(body), twice });
    }
}

/// Address and secrets as they are now, if the target is still there.
fn address(state: &State, to: &Target) -> Option<(String, Vec<String>)> {
    match to {
        Target::Url(url) => {
            let target = state.webhooks.iter().find(|target| target.url == *url)?;
            Some((target.url.clone(), target.secrets.clone()))
        }
        Target::Thin(url) => {
            let target = state.thin_webhooks.iter().find(|target| target.url == *url)?;
            Some((target.url.clone(), target.secrets.clone()))
        }
        Target::Endpoint(id) => {
            let mut endpoints = webhook_endpoints::of_account(state).into_iter();
            let endpoint = endpoints.find(|endpoint| text(endpoint, "id") == id)?;
            let secret = text(&endpoint, webhook_endpoints::SECRET).to_owned();
            (text(&endpoint, "status") == "enabled")
                .then(|| (text(&endpoint, "url").to_owned(), vec![secret]))
        }
    }
}

async fn attempt(shared: Arc<Shared>, sender: Sender, post: Post) {
    let mut result = send(&sender, &post).await;
    if post.twice {
        result = result.and(send(&sender, &post).await);
    }
    let mut state = shared.state();
    match result {
        Ok(()) => outbox::delivered(&mut state, post.number),
        Err(error) => {
            tracing::warn!(url = post.url, %error, "webhook not delivered by the sandbox");
            outbox::failed(&mut state, post.number);
        }
    }
}

/// One request; redirects are answers like any other.
async fn send(sender: &Sender, post: &Post) -> Result<(), Error> {
    let request = Request::post(&post.url)
        .header("user-agent", USER_AGENT)
        .header("content-type", "application/json; charset=utf-8")
        .header("accept", "*/*; q=0.5, application/xml")
        .header("cache-control", "no-cache")
        .header("stripe-signature", &post.signature)
        .body(Full::new(post.body.clone()))?;
    let exchange = async {
        let (head, body) = sender.request(request).await?.into_parts();
        // Read to its end for the connection's sake; whatever it says, or fails to say, the status stands.
        drop(Limited::new(body, ANSWER_BYTES_MAX).collect().await);
        Ok::<_, Error>(head.status)
    };
    let status = tokio::time::timeout(ANSWER_TIMEOUT, exchange).await??;
    if status.is_success() { Ok(()) } else { Err(Error::Status(status)) }
}

/// The `Stripe-Signature` header: <https://docs.stripe.com/webhooks#verify-manually>.
fn signature(secrets: &[String], seconds: i64, body: &[u8]) -> String {
    let mut header = format!("t={seconds}");
    for secret in secrets {
        header.push_str(",v1=");
        header.push_str(&digest(secret, seconds, body));
    }
    header.push_str(",v0=");
    header.push_str(&digest(DECOY_SECRET, seconds, body));
    header
}

fn digest(secret: &str, seconds: i64, body: &[u8]) -> String {
    // HMAC takes keys of any length, so this cannot fail; an empty digest would be refused by every receiver.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else { return String::new() };
    mac.update(seconds.to_string().as_bytes());
    mac.update(b".");
    mac.update(body);
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
