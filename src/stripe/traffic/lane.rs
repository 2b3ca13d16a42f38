//! What a request counts against at Stripe, and how urgent it is. Pure; it knows requests and no queue.

use super::super::outgoing::Outgoing;
use super::Sender;
use crate::contract::{Host, Verb};

/// Paths whose changes have a reserve: money that a customer waits for, and evidence that has a deadline.
const RESERVED: [&str; 3] = ["/v1/refunds", "/v1/disputes", "/v1/charges/{charge}/refund"];
/// Where files are, whichever host they are asked of.
const FILES: &str = "/v1/files";
/// What the paths of searches end with.
const SEARCH: &str = "/search";

/// How urgent a request is; the first goes before the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Changes of refunds and disputes, which have a reserve that nobody else can take.
    Reserved,
    /// Other changes.
    Write,
    /// Reads for a caller.
    Read,
    /// What the gateway does of its own accord.
    Background,
}

impl Class {
    /// All of them, the most urgent first.
    pub const ALL: [Self; 4] = [Self::Reserved, Self::Write, Self::Read, Self::Background];

    /// The class of a request.
    #[must_use]
    pub fn of(outgoing: &Outgoing, sender: &Sender) -> Self {
        match (sender, outgoing.verb) {
            (Sender::Gateway, _) => Self::Background,
            (Sender::Ahead(_, class), _) => *class,
            (Sender::Caller(_), Verb::Get) => Self::Read,
            (Sender::Caller(_), _) if RESERVED.iter().any(|path| is_under(&outgoing.template, path)) => {
                Self::Reserved
            }
            (Sender::Caller(_), _) => Self::Write,
        }
    }

    /// The name in metrics and records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reserved => "reserved",
            Self::Write => "write",
            Self::Read => "read",
            Self::Background => "background",
        }
    }

    /// Its part of what all get when every class wants more than there is. None is nought, so none starves.
    pub(super) fn weight(self) -> u32 {
        match self {
            Self::Reserved => 32,
            Self::Write => 16,
            Self::Read => 4,
            Self::Background => 1,
        }
    }
}

/// What has a rate of its own at Stripe (docs.stripe.com/rate-limits).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Lane {
    /// One endpoint, which counts against the account too.
    Endpoint(Verb, String),
    /// All searches together.
    Search,
    /// Reading files.
    FileReads,
    /// Uploading files and changing them.
    FileWrites,
}

impl Lane {
    pub(super) fn of(outgoing: &Outgoing) -> Self {
        let is_file = outgoing.host == Host::Files || is_under(&outgoing.template, FILES);
        match outgoing.verb {
            Verb::Get if is_file => Self::FileReads,
            _ if is_file => Self::FileWrites,
            Verb::Get if outgoing.template.ends_with(SEARCH) => Self::Search,
            verb => Self::Endpoint(verb, outgoing.template.clone()),
        }
    }

    /// Whether its requests count against the account's rate as well.
    pub(super) fn counts(&self) -> bool {
        matches!(self, Self::Endpoint(..))
    }
}

/// The object that a change is about, by its path up to the first id; none for what makes a new one, and for reads.
pub(super) fn object(outgoing: &Outgoing) -> Option<&str> {
    let place = outgoing.template.split('/').position(|part| part.starts_with('{'))?;
    let end = outgoing.path.match_indices('/').nth(place).map_or(outgoing.path.len(), |(at, _)| at);
    if outgoing.verb == Verb::Get { None } else { outgoing.path.get(..end) }
}

fn is_under(template: &str, path: &str) -> bool {
    template.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::account::AccountHeader;

    fn asked(verb: Verb, template: &str, path: &str) -> Outgoing {
        Outgoing {
            verb,
            template: template.to_owned(),
            ..Outgoing::read(path, String::new(), AccountHeader::None)
        }
    }

    #[test]
    fn what_a_request_counts_against_and_how_urgent_it_is() {
        let caller = Sender::Caller("shop".into());
        let endpoint = |verb, template: &str| Lane::Endpoint(verb, template.to_owned());
        let cases = [
            (Verb::Get, "/v1/refunds", Class::Read, endpoint(Verb::Get, "/v1/refunds")),
            (Verb::Post, "/v1/refunds", Class::Reserved, endpoint(Verb::Post, "/v1/refunds")),
            (Verb::Post, "/v1/disputes/{dispute}/close", Class::Reserved, {
                endpoint(Verb::Post, "/v1/disputes/{dispute}/close")
            }),
            (
                Verb::Post,
                "/v1/refunds_of_others",
                Class::Write,
                endpoint(Verb::Post, "/v1/refunds_of_others"),
            ),
            (Verb::Delete, "/v1/customers/{customer}", Class::Write, {
                endpoint(Verb::Delete, "/v1/customers/{customer}")
            }),
            (Verb::Get, "/v1/charges/search", Class::Read, Lane::Search),
            (Verb::Get, "/v1/files/{file}", Class::Read, Lane::FileReads),
            (Verb::Post, "/v1/files", Class::Write, Lane::FileWrites),
        ];
        for (verb, template, class, lane) in cases {
            let outgoing = asked(verb, template, template);
            assert_eq!((Class::of(&outgoing, &caller), Lane::of(&outgoing)), (class, lane), "{template}");
            assert_eq!(Class::of(&outgoing, &Sender::Gateway), Class::Background);
            let read = asked(Verb::Get, "/v1/charges/{charge}", "/v1/charges/ch_1");
            let ahead = caller.clone().ahead_of(&outgoing);
            assert_eq!(Class::of(&read, &ahead), class, "what {template} waits for");
        }
    }

    #[test]
    fn the_object_of_a_change_is_named_by_its_path_up_to_its_id() {
        let (intent, confirm) = ("/v1/payment_intents/{intent}", "/v1/payment_intents/{intent}/confirm");
        for (verb, template, path, object_path) in [
            (Verb::Post, intent, "/v1/payment_intents/pi_1", Some("/v1/payment_intents/pi_1")),
            (Verb::Post, confirm, "/v1/payment_intents/pi_1/confirm", Some("/v1/payment_intents/pi_1")),
            (Verb::Delete, intent, "/v1/payment_intents/pi_1", Some("/v1/payment_intents/pi_1")),
            (Verb::Get, intent, "/v1/payment_intents/pi_1", None),
            (Verb::Post, "/v1/refunds", "/v1/refunds", None),
        ] {
            assert_eq!(object(&asked(verb, template, path)), object_path, "{path}");
        }
    }
}
