//! Where Stripe is: a host that the key may be sent to, and the addresses below it. It opens no connection.

use std::net::IpAddr;

use reqwest::Url;

use super::SetupError;

/// Scheme, host and port of one of Stripe's hosts.
#[derive(Clone, Debug)]
pub(super) struct Base(Url);

impl Base {
    /// Takes `https` to any host and `http` to this machine.
    pub(super) fn parse(text: &str) -> Result<Self, SetupError> {
        // A refused address is shown without what may be a password in it.
        let refused = |url: &Url| format!("{}://{}", url.scheme(), url.host_str().unwrap_or_default());
        let url = Url::parse(text).map_err(|_| SetupError::Address("(unreadable)".to_owned()))?;
        let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        let anonymous = url.username().is_empty() && url.password().is_none();
        if !bare || !anonymous || url.host_str().is_none() {
            return Err(SetupError::Address(refused(&url)));
        }
        match url.scheme() {
            "https" => Ok(Self(url)),
            "http" if is_loopback(&url) => Ok(Self(url)),
            "http" => Err(SetupError::Unencrypted(refused(&url))),
            _ => Err(SetupError::Address(refused(&url))),
        }
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// Host and port.
    pub(super) fn server(&self) -> (&str, u16) {
        (self.0.host_str().unwrap_or_default(), self.0.port_or_known_default().unwrap_or_default())
    }

    /// The address of `path` and `query` here; `None` if that would be another path than the one written, as with dots
    /// that climb (`/v1/refunds/..`).
    pub(super) fn join(&self, path: &str, query: &str) -> Option<Url> {
        let mut url = self.0.clone();
        url.set_path(path);
        if url.path() != path {
            return None;
        }
        url.set_query((!query.is_empty()).then_some(query));
        Some(url)
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let literal = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || literal.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_goes_out_encrypted_or_stays_on_this_machine() {
        for good in [
            "https://api.stripe.com",
            "https://api.stripe.com/",
            "https://10.0.0.7:8443",
            "http://127.0.0.1:7403",
            "http://[::1]:7403",
            "http://localhost:7403",
        ] {
            assert!(Base::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "http://api.stripe.com",
            "http://10.0.0.7",
            "http://127.0.0.1.evil.example",
            "http://localhost.evil",
        ] {
            assert!(matches!(Base::parse(bad), Err(SetupError::Unencrypted(_))), "{bad}");
        }
        for bad in [
            "",
            "api.stripe.com",
            "ftp://localhost",
            "https://api.stripe.com/v1",
            "https://api.stripe.com?a=b",
            "https://user:secret@api.stripe.com",
        ] {
            let error = Base::parse(bad).unwrap_err();
            assert!(matches!(error, SetupError::Address(_)), "{bad}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_path_is_taken_as_it_is_written_or_not_at_all() {
        let base = Base::parse("https://api.stripe.com").unwrap();
        let joined = |path, query| base.join(path, query).map(String::from);
        assert_eq!(joined("/v1/refunds/re_1", "").unwrap(), "https://api.stripe.com/v1/refunds/re_1");
        assert_eq!(
            joined("/v1/refunds", "a[b]=c%20d").unwrap(),
            "https://api.stripe.com/v1/refunds?a[b]=c%20d"
        );
        for bad in [
            "/v1/refunds/..",
            "/v1/refunds/../charges",
            "/v1/%2e%2e/x",
            "/v1/.",
            "v1/refunds",
            "/v1/a?b",
            "/v1/a#b",
        ] {
            assert_eq!(joined(bad, ""), None, "{bad}");
        }
    }
}
