//! The table of endpoints: verb, path, parameters, what they answer, who carries them out. It must not do their work.

use serde_json::Value;

use super::error::Error;
use super::multipart::Upload;
use super::object::Object;
use super::state::State;
use super::{
    account, cash_balance, charges, customer_items, customers, disputes, events, files, money,
    payment_intents, payment_methods, payouts, refunds, thin, warnings, webhook_endpoints,
};

/// Parameters every list takes.
pub(super) const LIST: &str = "limit:int starting_after ending_before created:range";

/// The parameter every endpoint takes.
const EXPAND: &str = "expand:list";

/// One request as its endpoint sees it: checked parameters and the state to change.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) state: &'a mut State,
    pub(super) params: Object,
    pub(super) path: &'a str,
    pub(super) captures: Vec<&'a str>,
    /// The file that came with the request.
    pub(super) upload: Option<Upload>,
}

impl<'a> Call<'a> {
    /// The path's n-th variable segment, from 0.
    pub(super) fn id(&self, n: usize) -> &'a str {
        self.captures.get(n).copied().unwrap_or_default()
    }
}

/// Carries out one endpoint. It checks everything before it changes anything.
pub(super) type Handler = fn(&mut Call<'_>) -> Result<Value, Error>;

/// One endpoint.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) method: &'static str,
    pub(super) pattern: &'static str,
    /// Kind of the object answered, of a list's elements when `many`; expansions are checked against it.
    pub(super) object: &'static str,
    pub(super) many: bool,
    params: &'static [&'static str],
    pub(super) handler: Handler,
}

impl Route {
    /// The shape of the endpoint's parameters.
    pub(super) fn shape(&self) -> String {
        let mut shape = self.params.join(" ");
        shape.push(' ');
        shape.push_str(EXPAND);
        shape
    }

    /// The path's variable segments, if the path fits the pattern.
    fn captures<'a>(&self, path: &'a str) -> Option<Vec<&'a str>> {
        let mut captures = Vec::new();
        let mut segments = path.split('/');
        for wanted in self.pattern.split('/') {
            let segment = segments.next()?;
            if wanted.starts_with('{') && !segment.is_empty() {
                captures.push(segment);
            } else if wanted != segment {
                return None;
            }
        }
        segments.next().is_none().then_some(captures)
    }
}

/// `GET` of one object.
pub(super) const fn get(
    pattern: &'static str,
    object: &'static str,
    params: &'static [&'static str],
    handler: Handler,
) -> Route {
    Route { method: "GET", pattern, object, many: false, params, handler }
}

/// `GET` of a list.
pub(super) const fn list(
    pattern: &'static str,
    object: &'static str,
    params: &'static [&'static str],
    handler: Handler,
) -> Route {
    Route { method: "GET", pattern, object, many: true, params, handler }
}

/// `POST`.
pub(super) const fn post(
    pattern: &'static str,
    object: &'static str,
    params: &'static [&'static str],
    handler: Handler,
) -> Route {
    Route { method: "POST", pattern, object, many: false, params, handler }
}

/// `DELETE`.
pub(super) const fn delete(pattern: &'static str, object: &'static str, handler: Handler) -> Route {
    Route { method: "DELETE", pattern, object, many: false, params: &[], handler }
}

/// Every table; within one, a fixed segment stands before a variable one.
const TABLES: &[&[Route]] = &[
    account::ROUTES,
    cash_balance::ROUTES,
    charges::ROUTES,
    customer_items::ROUTES,
    customers::ROUTES,
    disputes::ROUTES,
    events::ROUTES,
    files::ROUTES,
    money::ROUTES,
    payment_intents::ROUTES,
    payment_methods::ROUTES,
    payouts::ROUTES,
    refunds::ROUTES,
    thin::ROUTES,
    warnings::ROUTES,
    webhook_endpoints::ROUTES,
];

/// Every endpoint.
pub(super) fn all() -> impl Iterator<Item = &'static Route> {
    TABLES.iter().flat_map(|table| table.iter())
}

/// The endpoint for a request, with the path's variable segments.
pub(super) fn find<'a>(method: &str, path: &'a str) -> Result<(&'static Route, Vec<&'a str>), Error> {
    let fits = |route: &'static Route| {
        let captures = (route.method == method).then(|| route.captures(path)).flatten();
        captures.map(|captures| (route, captures))
    };
    all().find_map(fits).ok_or_else(|| {
        let message = format!("Unrecognized request URL ({method}: {path}).");
        Error::new(404, "invalid_request_error", message)
    })
}
