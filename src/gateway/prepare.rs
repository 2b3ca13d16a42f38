//! From a request to what would go to Stripe: checks first, all violations at once, then path, parameters and paging.

use std::sync::Arc;

use super::accounts::{Account, Accounts};
use super::fault::{Fault, Reason};
use crate::contract::{
    Local, Method, Params, Received, Sensitivity, Spec, Verb, Violation, Violations, page,
};
use crate::stripe::{Body, Outgoing, STRIPE_VERSION};

/// A request that was checked and turned into Stripe's terms.
#[derive(Debug)]
pub(super) struct Prepared<'a> {
    /// The Stripe account that it is for.
    pub account: Arc<Account>,
    /// The RPC.
    pub spec: &'static Spec,
    /// What the request says to the gateway.
    pub local: Local<'a>,
    /// The path at Stripe.
    pub path: String,
    /// What the request says to Stripe, paging left out.
    pub params: Params,
    /// Everything that is sent, paging included.
    pub sent: Params,
}

/// Checks a request and prepares it.
///
/// # Errors
/// INVALID_ARGUMENT with every violation; NOT_FOUND for an account that is not configured.
pub(super) fn prepare<'a, M: Method>(
    received: &'a Received<M::Request>,
    accounts: &Accounts,
) -> Result<Prepared<'a>, Fault> {
    let spec = M::SPEC;
    if spec.mutates() && !received.unknown.is_empty() {
        return Err(unknown_fields(&received.unknown));
    }
    let mut violations = Violations::of(&received.message).into_vec();
    let local = M::local(&received.message);
    let mut params = Params::of(&received.message);
    for (name, value) in spec.fixed {
        params.push(*name, *value, Sensitivity::Public);
    }
    let mut sent = params.clone();
    if let Err(error) = page::ask(spec, &local, &mut sent) {
        violations.push(Violation { field: "page_token".to_owned(), description: error.to_string() });
    }
    if !violations.is_empty() {
        return Err(Fault::invalid(violations));
    }
    let account = Arc::clone(accounts.named(local.account)?);
    Ok(Prepared { account, spec, local, path: M::path(&received.message), params, sent })
}

/// Refuses a change that says something this build does not understand.
pub(super) fn unknown_fields(paths: &[String]) -> Fault {
    let violations = paths.iter().map(|path| Violation {
        field: path.clone(),
        description: "is a field that this gateway does not know; nothing was sent".to_owned(),
    });
    let mut fault = Fault::invalid(violations.collect());
    fault.reason = Reason::UnknownField;
    fault
}

impl Prepared<'_> {
    /// The request as it goes to Stripe, without a key.
    pub(super) fn outgoing(&self, account: &Account) -> Outgoing {
        let encoded = self.sent.encode();
        let (query, body) = match self.spec.verb {
            Verb::Post => (String::new(), Body::Form(encoded)),
            Verb::Get | Verb::Delete => (encoded, Body::Empty),
        };
        Outgoing {
            verb: self.spec.verb,
            host: self.spec.host,
            template: self.spec.path.to_owned(),
            path: self.path.clone(),
            query,
            body,
            idempotency_key: None,
            version: STRIPE_VERSION.to_owned(),
            account: account.header.clone(),
        }
    }
}
