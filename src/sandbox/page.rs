//! Lists: newest first, paged by object id, filtered by `created` and equal fields. It must not know any resource.
//! Source: <https://docs.stripe.com/api/pagination>.

use serde_json::{Value, json};

use super::error::Error;
use super::object::{Object, int, text};
use super::routes::Call;

const LIMIT_DEFAULT: usize = 10;
const LIMIT_MAX: i64 = 100;

/// The list of all objects of a kind that pass the filter.
pub(super) fn list(
    call: &Call<'_>,
    kind: &str,
    filter: impl Fn(&Object, &Object) -> bool,
) -> Result<Value, Error> {
    let params = &call.params;
    let items =
        call.state.all(kind).rev().filter(|item| within(item, params, "created") && filter(item, params));
    of(call.path, params, items)
}

/// The list envelope around the given items, which come newest first.
pub(super) fn of<'a>(
    url: &str,
    params: &Object,
    items: impl Iterator<Item = &'a Object>,
) -> Result<Value, Error> {
    let limit = limit(params)?;
    let (after, before) = (text(params, "starting_after"), text(params, "ending_before"));
    if !after.is_empty() && !before.is_empty() {
        let message = "Only one of starting_after and ending_before may be given.";
        return Err(Error::invalid(message).code("parameters_exclusive").param("ending_before"));
    }
    let (page, has_more): (Vec<_>, bool) = if before.is_empty() {
        let mut rest = items.skip_while(|item| !after.is_empty() && text(item, "id") != after).peekable();
        if !after.is_empty() && rest.next().is_none() {
            return Err(cursor_missing("starting_after", after));
        }
        let page = rest.by_ref().take(limit).collect();
        (page, rest.next().is_some())
    } else {
        let mut found = false;
        let newer: Vec<_> = items
            .take_while(|item| {
                found = text(item, "id") == before;
                !found
            })
            .collect();
        if !found {
            return Err(cursor_missing("ending_before", before));
        }
        let skipped = newer.len().saturating_sub(limit);
        (newer.into_iter().skip(skipped).collect(), skipped > 0)
    };
    Ok(json!({"object": "list", "data": page, "has_more": has_more, "url": url}))
}

/// The page size asked for.
pub(super) fn limit(params: &Object) -> Result<usize, Error> {
    match params.get("limit").and_then(Value::as_i64) {
        None => Ok(LIMIT_DEFAULT),
        Some(limit) if (1..=LIMIT_MAX).contains(&limit) => {
            Ok(usize::try_from(limit).unwrap_or(LIMIT_DEFAULT))
        }
        Some(limit) => {
            let message = format!("Invalid limit: {limit}; it must be from 1 to {LIMIT_MAX}.");
            Err(Error::integer("limit", message))
        }
    }
}

/// Whether the object's fields equal the parameters of the same names, where given.
pub(super) fn equal(object: &Object, params: &Object, names: &[&str]) -> bool {
    names.iter().all(|name| params.get(*name).is_none_or(|wanted| object.get(*name) == Some(wanted)))
}

/// Whether the object's instant lies where the parameter of the same name says, if given.
pub(super) fn within(object: &Object, params: &Object, name: &str) -> bool {
    let instant = int(object, name);
    match params.get(name) {
        Some(Value::Object(bounds)) => bounds.iter().all(|(bound, value)| {
            let value = value.as_i64().unwrap_or_default();
            match bound.as_str() {
                "gt" => instant > value,
                "gte" => instant >= value,
                "lt" => instant < value,
                _ => instant <= value,
            }
        }),
        Some(Value::Number(exact)) => exact.as_i64() == Some(instant),
        _ => true,
    }
}

fn cursor_missing(param: &str, id: &str) -> Error {
    Error::invalid(format!("No object of this list has the id '{id}'.")).code("resource_missing").param(param)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::of;
    use crate::sandbox::object::{Object, from};

    fn page(params: &Value) -> (String, bool) {
        let items: Vec<Object> = ["e", "d", "c", "b", "a"].iter().map(|id| from(json!({"id": id}))).collect();
        let list = of("/v1/x", &from(params.clone()), items.iter()).unwrap();
        let ids = list["data"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap()).collect();
        (ids, list["has_more"].as_bool().unwrap())
    }

    #[test]
    fn pages_run_in_both_directions_without_overlap() {
        assert_eq!(page(&json!({"limit": 2})), ("ed".to_owned(), true));
        assert_eq!(page(&json!({"limit": 2, "starting_after": "d"})), ("cb".to_owned(), true));
        assert_eq!(page(&json!({"limit": 2, "starting_after": "b"})), ("a".to_owned(), false));
        assert_eq!(page(&json!({"limit": 2, "ending_before": "a"})), ("cb".to_owned(), true));
        assert_eq!(page(&json!({"limit": 2, "ending_before": "d"})), ("e".to_owned(), false));
        assert_eq!(page(&json!({})), ("edcba".to_owned(), false));
    }

    #[test]
    fn bad_limits_and_cursors_are_refused() {
        let items: Vec<Object> = vec![from(json!({"id": "a"}))];
        for params in [
            json!({"limit": 0}),
            json!({"limit": 101}),
            json!({"starting_after": "x"}),
            json!({"ending_before": "x"}),
            json!({"starting_after": "a", "ending_before": "a"}),
        ] {
            assert_eq!(of("/v1/x", &from(params), items.iter()).unwrap_err().status, 400);
        }
    }
}
