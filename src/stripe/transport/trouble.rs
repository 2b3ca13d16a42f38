//! Names what went wrong on the way, and whether a byte of the request had left. It keeps no text of the library.

use std::error::Error;
use std::io;

use crate::stripe::answer::{Attempt, Trouble};

/// What a failure before the answer's headers means.
pub(super) fn while_sending(error: &reqwest::Error) -> Attempt {
    if error.is_connect() {
        let trouble = match () {
            () if error.is_dns() => Trouble::Dns,
            () if causes(error).any(is_tls) => Trouble::Tls,
            () => Trouble::Connect,
        };
        return Attempt::NotSent(trouble);
    }
    if error.is_builder() {
        return Attempt::NotSent(Trouble::Unsendable);
    }
    Attempt::Broken(while_reading(error))
}

/// What a failure after the answer's headers means.
pub(super) fn while_reading(error: &reqwest::Error) -> Trouble {
    let foreign = |cause: &(dyn Error + 'static)| cause.downcast_ref().is_some_and(hyper::Error::is_parse);
    match () {
        () if error.is_timeout() => Trouble::Timeout,
        () if causes(error).any(foreign) => Trouble::Protocol,
        () => Trouble::Reset,
    }
}

fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(error.source(), |&cause| cause.source())
}

/// I/O errors keep what they carry, TLS errors and other I/O errors, out of the chain of causes.
fn is_tls(cause: &(dyn Error + 'static)) -> bool {
    let carried = cause.downcast_ref().and_then(io::Error::get_ref);
    cause.is::<rustls::Error>() || carried.is_some_and(|carried| is_tls(carried))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use reqwest::dns::{Name, Resolve, Resolving};

    use super::*;

    /// Knows no name, whatever the machine's own resolver would say or how long it would take.
    struct Nowhere;

    impl Resolve for Nowhere {
        fn resolve(&self, _name: Name) -> Resolving {
            Box::pin(async { Err("no such host".into()) })
        }
    }

    #[tokio::test]
    async fn nothing_was_sent_to_a_host_without_address() {
        drop(rustls::crypto::ring::default_provider().install_default());
        let http = reqwest::Client::builder().no_proxy().dns_resolver(Arc::new(Nowhere)).tls_certs_only([]);
        let error = http.build().unwrap().get("https://stripe.invalid").send().await.unwrap_err();
        assert_eq!(while_sending(&error), Attempt::NotSent(Trouble::Dns));
    }
}
