//! Learns by reading whether a change took effect: which requests to read, and what their answers prove. Pure; the
//! reading is done elsewhere, and what follows from a finding is the ledger's to say.

mod compare;
mod object;
#[cfg(test)]
mod tests;

use serde_json::Value;

use self::compare::{Compared, compare, reached, top_level};
use self::object::{created_s, success, summary};
pub(super) use self::object::{removed, stamp_of};
use crate::contract::{Host, Lookup, LookupBy, Params, Sensitivity, Spec, Verb, decode_form};
use crate::domain::clock::UnixMillis;
use crate::domain::fingerprint::path_values;
use crate::domain::limits::{
    FOUND_OBJECTS_MAX, LOOKUP_CLOCK_S_MAX, LOOKUP_PAGES_MAX, LOOKUP_UNSTAMPED_CLOCK_S_MAX, PAGE_ITEMS_MAX,
};
use crate::domain::planted;
use crate::ledger::{Finding, Found, Success};
use crate::stripe::{Answer, Attempt, Body, Outgoing, STRIPE_VERSION};

/// The filter of a list that stands for "from the intent on" instead of a request field.
const SINCE: &str = "created";
/// The target state of deletions, which Stripe also shows by not knowing the object any more.
const DELETED: &str = "deleted=true";

/// One change to be looked up, while it is being looked up.
#[derive(Debug)]
pub(super) struct Question<'a> {
    spec: &'static Spec,
    lookup: &'static Lookup,
    /// What was sent to Stripe.
    outgoing: &'a Outgoing,
    params: Vec<(String, String)>,
    stamp: Option<String>,
    /// Objects that were created earlier cannot be its effect.
    since_s: i64,
    pages: usize,
    found: Vec<Found>,
    /// How an object that carries the stamp differs from what was asked for.
    misfit: Option<String>,
}

/// What comes next.
#[derive(Debug)]
pub(super) enum Step {
    /// Read this.
    Read(Box<Outgoing>),
    /// That was all.
    Done(Finding),
}

/// What an object is that somebody names as the effect.
#[derive(Debug)]
pub(super) enum Named {
    /// It can be the effect.
    Effect(Success),
    /// Stripe has no such object.
    Missing,
    /// Stripe did not show it, which says nothing of it.
    Unread,
    /// It is something else, for this reason.
    Other(String),
}

impl<'a> Question<'a> {
    /// The question whether `outgoing` took effect, which Stripe can first have seen at `first_sent_ms`; `stamp` is the
    /// operation's. `None` where reading cannot tell: the RPC names no strategy, or its effect may exist twice anyway.
    pub(super) fn of(
        spec: &'static Spec,
        outgoing: &'a Outgoing,
        stamp: String,
        first_sent_ms: UnixMillis,
    ) -> Option<Self> {
        let lookup = spec.lookup.as_ref()?;
        let params = match &outgoing.body {
            Body::Form(body) => decode_form(body),
            Body::Empty | Body::Multipart { .. } => Vec::new(),
        };
        let stamp = spec.stamped.then_some(stamp);
        let margin_s = if stamp.is_some() { LOOKUP_CLOCK_S_MAX } else { LOOKUP_UNSTAMPED_CLOCK_S_MAX };
        let since_s = first_sent_ms.div_euclid(1000).saturating_sub(margin_s).max(0);
        let (pages, found, misfit) = (0, Vec::new(), None);
        Some(Self { spec, lookup, outgoing, params, stamp, since_s, pages, found, misfit })
    }

    /// The first request to read.
    pub(super) fn first(&self) -> Outgoing {
        self.request(None)
    }

    /// Takes the last attempt of a request, and says what comes next.
    pub(super) fn take(&mut self, attempt: Option<&Attempt>) -> Step {
        match attempt {
            Some(Attempt::Answered(answer)) => self.answered(answer),
            Some(Attempt::NotSent(trouble) | Attempt::Broken(trouble)) => unread(trouble.to_string()),
            None => unread("no answer came in time".to_owned()),
        }
    }

    fn request(&self, after: Option<&str>) -> Outgoing {
        let (LookupBy::List(template) | LookupBy::Retrieve(template)) = self.lookup.by;
        let mut query = Params::default();
        if let LookupBy::List(_) = self.lookup.by {
            for filter in self.lookup.filters {
                match self.param(filter) {
                    _ if *filter == SINCE && self.stamp_decides() => {}
                    _ if *filter == SINCE => {
                        query.push("created[gte]", self.since_s.to_string(), Sensitivity::Public);
                    }
                    Some(value) => query.push(*filter, value, Sensitivity::Public),
                    None => {}
                }
            }
            query.push("limit", PAGE_ITEMS_MAX.to_string(), Sensitivity::Public);
            if let Some(after) = after {
                query.push("starting_after", after, Sensitivity::Public);
            }
        }
        read(template, self.path(template), query.encode(), self.outgoing)
    }

    /// The path, its fields filled with those of the request.
    fn path(&self, template: &str) -> String {
        let values = path_values(&self.outgoing.template, &self.outgoing.path);
        values
            .iter()
            .fold(template.to_owned(), |path, (name, value)| path.replace(&format!("{{{name}}}"), value))
    }

    fn param(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    fn answered(&mut self, answer: &Answer) -> Step {
        match (answer.status, answer.json()) {
            (200..=299, Some(json)) => match (self.lookup.by, json.get("data").and_then(Value::as_array)) {
                (LookupBy::List(_), Some(items)) => {
                    let more = json.get("has_more").and_then(Value::as_bool) == Some(true);
                    self.page(items, more, answer)
                }
                (LookupBy::Retrieve(_), None) if json.is_object() => Step::Done(self.object(&json, answer)),
                _ => unread("the answer is not what was asked for".to_owned()),
            },
            (404, Some(_)) if self.is_missing(answer) && self.lookup.reached == DELETED => {
                let (_, id) = self.outgoing.path.rsplit_once('/').unwrap_or_default();
                Step::Done(Finding::Effected(removed(self.spec, id, answer.request_id.clone())))
            }
            (400 | 403 | 404, Some(_)) => match answer.error() {
                Some(error) => self.undecided(format!(
                    "Stripe refused the look-up with {} `{}`",
                    answer.status,
                    error.code.unwrap_or(error.kind)
                )),
                None => unread(format!("the look-up was answered {} by something else", answer.status)),
            },
            (status, _) => unread(format!("the look-up was answered {status}")),
        }
    }

    fn is_missing(&self, answer: &Answer) -> bool {
        answer.error().and_then(|error| error.code).as_deref() == Some("resource_missing")
    }

    /// A page of a list, the newest first.
    fn page(&mut self, items: &[Value], more: bool, answer: &Answer) -> Step {
        self.pages += 1;
        let mut effects = Vec::new();
        let mut reached_the_start = !more;
        for item in items {
            let earlier = created_s(item).is_some_and(|created| created < self.since_s);
            if earlier && !self.stamp_decides() {
                reached_the_start = true;
                break;
            }
            if !earlier && self.found.len() < FOUND_OBJECTS_MAX {
                self.found.extend(summary(item));
            }
            match self.fits(item) {
                Some(Ok(())) => effects.push(item),
                Some(Err(misfit)) => self.misfit = Some(misfit),
                None => {}
            }
        }
        let last = items.last().and_then(|item| item.get("id")).and_then(Value::as_str);
        match (effects.as_slice(), last) {
            ([effect], _) => {
                Step::Done(Finding::Effected(success(self.spec, effect, answer.request_id.clone())))
            }
            ([], Some(last)) if !reached_the_start && self.pages < LOOKUP_PAGES_MAX => {
                Step::Read(Box::new(self.request(Some(last))))
            }
            ([], _) => match self.misfit.take() {
                Some(misfit) => self.undecided(misfit),
                None if !reached_the_start => {
                    self.undecided(format!("more than {LOOKUP_PAGES_MAX} pages of objects have come since"))
                }
                None => Step::Done(Finding::Absent { found: std::mem::take(&mut self.found) }),
            },
            (effects, _) => self.undecided(format!("{} objects could be the effect", effects.len())),
        }
    }

    /// Whether every object of the list is compared, since the list is of one target and the stamp tells for sure. The
    /// clock at the first send may have been wrong, and an earlier generation may have taken effect.
    fn stamp_decides(&self) -> bool {
        let (LookupBy::List(template) | LookupBy::Retrieve(template)) = self.lookup.by;
        let targeted = || self.targets().iter().any(|target| self.param(target).is_some());
        self.stamp.is_some() && (template.contains('{') || targeted())
    }

    /// Whether a listed object is the effect; `None` when it is another's.
    fn fits(&self, item: &Value) -> Option<Result<(), String>> {
        let Compared { equal, different } = compare(&self.params, self.lookup.compare, item);
        let targets = compare(&self.params, &self.targets(), item);
        let stamp = self.stamp.as_ref().filter(|_| !planted::active("stamp-ignored"));
        match stamp {
            Some(stamp) if stamp_of(item) != Some(stamp.as_str()) => None,
            Some(_) => Some(match different.iter().chain(&targets.different).next() {
                None => Ok(()),
                Some(name) => {
                    Err(format!("an object carries the operation's stamp, but has another `{name}`"))
                }
            }),
            None if equal > 0 && different.is_empty() && targets.different.is_empty() => Some(Ok(())),
            None => None,
        }
    }

    /// The request fields by which the list was narrowed.
    fn targets(&self) -> Vec<&'static str> {
        self.lookup.filters.iter().copied().filter(|filter| *filter != SINCE).collect()
    }

    /// The one object that the change was about.
    fn object(&mut self, object: &Value, answer: &Answer) -> Finding {
        self.found.extend(summary(object));
        let effected = || Finding::Effected(success(self.spec, object, answer.request_id.clone()));
        let absent = |question: &mut Self| Finding::Absent { found: std::mem::take(&mut question.found) };
        let Compared { equal, different } = compare(&self.params, self.lookup.compare, object);
        let target_state = (!self.lookup.reached.is_empty()).then(|| reached(self.lookup.reached, object));
        match (target_state, equal, different.as_slice()) {
            (Some(true), _, []) => effected(),
            (None | Some(false), ..) if object.get("deleted") == Some(&Value::Bool(true)) => {
                self.undecide("the object has been deleted since".to_owned())
            }
            (Some(false), ..) => absent(self),
            (None, 0, []) => self.undecide("nothing that was asked for shows on the object".to_owned()),
            (None, _, []) => match self.unseen() {
                None => effected(),
                Some(name) => self.undecide(format!("the object does not show `{name}`")),
            },
            // It may have shown all of it, and have been changed again since.
            (None, 0, _) => self.undecide("the object shows nothing of what was asked for".to_owned()),
            (_, _, [name, ..]) => {
                self.undecide(format!("the object shows some of what was asked for, but another `{name}`"))
            }
        }
    }

    /// A parameter that the object does not show, and that may have been the whole point of the change.
    fn unseen(&self) -> Option<&str> {
        let fixed = |name: &str| self.spec.fixed.iter().any(|(own, _)| *own == name);
        let seen = |name: &str| self.lookup.compare.contains(&name) || name == "expand" || fixed(name);
        self.params.iter().map(|(name, _)| top_level(name)).find(|name| !seen(name))
    }

    /// The request that reads the object with this id, made or changed by a change of this RPC to this place.
    pub(super) fn named(&self, id: &str) -> Outgoing {
        let (template, path) = match self.lookup.by {
            LookupBy::List(list) => (format!("{list}/{{id}}"), format!("{}/{id}", self.path(list))),
            LookupBy::Retrieve(template) => (template.to_owned(), self.path(template)),
        };
        read(&template, path, String::new(), self.outgoing)
    }

    /// Whether the object that was read under this id can be the effect, as somebody says who may know more than the
    /// object shows. It is not when it is of another kind or place, or the effect of another operation.
    pub(super) fn is_effect(&self, id: &str, answer: &Answer) -> Named {
        let request_id = answer.request_id.clone();
        let json = answer.json().filter(|json| (200..300).contains(&answer.status) && json.is_object());
        let Some(object) = json else {
            return match answer.status == 404 && self.is_missing(answer) {
                true if self.lookup.reached == DELETED => Named::Effect(removed(self.spec, id, request_id)),
                true => Named::Missing,
                false => Named::Unread,
            };
        };
        let text = |name: &str| object.get(name).and_then(Value::as_str);
        let other_kind =
            matches!(self.lookup.by, LookupBy::List(_)) && text("object") != Some(self.spec.object);
        let targets = compare(&self.params, &self.targets(), &object);
        match (&self.stamp, stamp_of(&object), targets.different.first()) {
            _ if text("id").is_some_and(|own| own != id) => {
                Named::Other("it was about another object".to_owned())
            }
            _ if other_kind => Named::Other(format!("it is no `{}`", self.spec.object)),
            (Some(own), Some(other), _) if own != other => {
                Named::Other(format!("it was made by the operation `{other}`"))
            }
            (.., Some(target)) => Named::Other(format!("it has another `{target}`")),
            _ => Named::Effect(success(self.spec, &object, request_id)),
        }
    }

    fn undecided(&mut self, why: String) -> Step {
        Step::Done(self.undecide(why))
    }

    fn undecide(&mut self, why: String) -> Finding {
        Finding::Undecided { why, found: std::mem::take(&mut self.found) }
    }
}

/// A GET on behalf of the account that `outgoing` acts for.
fn read(template: &str, path: String, query: String, outgoing: &Outgoing) -> Outgoing {
    Outgoing {
        verb: Verb::Get,
        host: Host::Api,
        template: template.to_owned(),
        path,
        query,
        body: Body::Empty,
        idempotency_key: None,
        version: STRIPE_VERSION.to_owned(),
        account: outgoing.account.clone(),
    }
}

fn unread(why: String) -> Step {
    Step::Done(Finding::Unread { why })
}
