//! Page tokens: opaque to callers, bound to the RPC and the filters that they were made for.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::form::{Params, Sensitivity};
use super::method::{Local, Paging, Spec};
use crate::domain::limits::{PAGE_ITEMS_DEFAULT, PAGE_ITEMS_MAX};

const VERSION: u8 = 1;
const BINDING_BYTES: usize = 8;

/// The token is not one that this RPC gave out for these filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "is not a token of this call; send `next_page_token` of the page before, with every filter unchanged"
)]
pub struct BadToken;

/// Adds the paging parameters that Stripe needs to `params`, which hold the filters.
///
/// # Errors
/// When the request's page token is not valid for these filters.
pub fn ask(spec: &Spec, local: &Local<'_>, params: &mut Params) -> Result<(), BadToken> {
    let parameter = match spec.paging {
        Paging::None => return Ok(()),
        Paging::List => "starting_after",
        Paging::Search => "page",
    };
    let position = match local.page_token {
        "" => None,
        token => Some(binding(spec, params).open(token)?),
    };
    let size = if local.page_size == 0 { PAGE_ITEMS_DEFAULT } else { local.page_size.min(PAGE_ITEMS_MAX) };
    params.push("limit", size.to_string(), Sensitivity::Public);
    if let Some(position) = position {
        params.push(parameter, position, Sensitivity::Public);
    }
    Ok(())
}

/// The token of the page after `answer`; empty at the end. `filters` are the parameters before paging was added.
#[must_use]
pub fn next(spec: &Spec, filters: &Params, answer: &Value) -> String {
    let position = match spec.paging {
        Paging::None => None,
        Paging::Search => answer.get("next_page").and_then(Value::as_str),
        Paging::List if answer.get("has_more").and_then(Value::as_bool) == Some(true) => answer
            .get("data")
            .and_then(|data| data.as_array()?.last())
            .and_then(|last| last.get("id")?.as_str()),
        Paging::List => None,
    };
    position.map(|position| binding(spec, filters).seal(position)).unwrap_or_default()
}

fn binding(spec: &Spec, filters: &Params) -> Binding {
    Binding::new(&spec.full_name(), filters.encode().as_bytes())
}

/// What a token belongs to: an RPC and the filters of its first page.
#[derive(Clone, Copy, Debug)]
pub struct Binding([u8; BINDING_BYTES]);

impl Binding {
    /// The binding to an RPC and its filters, in any unambiguous form.
    #[must_use]
    pub fn new(rpc: &str, filters: &[u8]) -> Self {
        let digest = Sha256::new().chain_update(rpc).chain_update(b"\n").chain_update(filters);
        let mut binding = [0; BINDING_BYTES];
        for (to, from) in binding.iter_mut().zip(digest.finalize()) {
            *to = from;
        }
        Self(binding)
    }

    /// The token for the page that begins at `position`.
    #[must_use]
    pub fn seal(&self, position: &str) -> String {
        let mut token = vec![VERSION];
        token.extend(self.0);
        token.extend(position.as_bytes());
        URL_SAFE_NO_PAD.encode(token)
    }

    /// The position in a token.
    ///
    /// # Errors
    /// When the token was not made by [`Binding::seal`] of the same binding.
    pub fn open(&self, token: &str) -> Result<String, BadToken> {
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| BadToken)?;
        let bytes =
            bytes.strip_prefix(&[VERSION]).and_then(|rest| rest.strip_prefix(&self.0)).ok_or(BadToken)?;
        let position = String::from_utf8(bytes.to_vec()).map_err(|_| BadToken)?;
        if position.is_empty() { Err(BadToken) } else { Ok(position) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::contract::{ListRefunds, Method};
    use crate::proto::v1::ListRefundsRequest;

    fn filters(charge: &str) -> Params {
        Params::of(&ListRefundsRequest { charge: Some(charge.into()), ..Default::default() })
    }

    #[test]
    fn a_token_leads_to_the_next_page_of_the_same_question_only() {
        let spec = ListRefunds::SPEC;
        let token = next(
            spec,
            &filters("ch_1"),
            &json!({"has_more": true, "data": [{"id": "re_2"}, {"id": "re_1"}]}),
        );
        let local = Local { page_token: &token, page_size: 500, ..Local::default() };
        let mut params = filters("ch_1");
        assert_eq!(ask(spec, &local, &mut params), Ok(()));
        assert_eq!(params.encode(), "charge=ch_1&limit=100&starting_after=re_1");
        assert_eq!(ask(spec, &local, &mut filters("ch_2")), Err(BadToken));
    }

    #[test]
    fn the_last_page_has_no_token() {
        assert_eq!(
            next(ListRefunds::SPEC, &filters("ch_1"), &json!({"has_more": false, "data": [{"id": "re_1"}]})),
            ""
        );
    }

    #[test]
    fn junk_is_refused() {
        for token in ["%", "AA", "AQ", "re_1"] {
            let local = Local { page_token: token, ..Local::default() };
            assert_eq!(ask(ListRefunds::SPEC, &local, &mut filters("ch_1")), Err(BadToken), "{token}");
        }
    }
}
