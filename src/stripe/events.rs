//! Reads Stripe's list of events, and what thin events only name. Each read is one attempt, since whoever asks here can
//! wait while callers cannot. Sources: docs.stripe.com/api/events/list, docs.stripe.com/event-destinations.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::answer::{Answer, Attempt, Trouble};
use super::client::Client;
use super::outgoing::{AccountHeader, Outgoing};
use crate::contract::{Params, Sensitivity};

const LIST: &str = "/v1/events";
const THIN_EVENT: &str = "/v2/core/events/{id}";
/// Stands for every path that Stripe names: there is no end of them, since some hold the ids of other objects, and each
/// template is limited and counted by itself for as long as the gateway runs.
const OBJECT: &str = "/{object}";
/// Events on a page, the most that Stripe gives.
pub const EVENTS_PAGE_MAX: usize = 100;
/// How far back the list reaches, in seconds.
pub const EVENTS_LISTED_S: i64 = 30 * 24 * 3_600;

/// A question for a part of the list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventsQuery {
    /// Events that happened at or after this second.
    pub from_s: i64,
    /// Events that happened before this second.
    pub before_s: i64,
    /// Their types, at most [`EVENTS_TYPES_MAX`](crate::domain::limits::EVENTS_TYPES_MAX); all when empty.
    pub types: Vec<String>,
    /// Only those that an endpoint has not taken.
    pub undelivered: bool,
}

/// A page, the newest event first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventsPage {
    /// The events, each as it stands in the answer.
    pub events: Vec<String>,
    /// Whether older ones fit the question too.
    pub has_more: bool,
    /// When Stripe answered, by its own clock, in seconds of Unix time, if it told.
    pub date_s: Option<i64>,
}

/// Why a read has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Stripe does not take the key.
    #[error("Stripe refused the key")]
    KeyRefused,
    /// A restricted key without the right.
    #[error("the key has no right to `{0}`")]
    NoPermission(String),
    /// Too much was asked of Stripe.
    #[error("Stripe asks for fewer requests")]
    Limited,
    /// There is no such thing.
    #[error("Stripe has no such object")]
    Missing,
    /// Stripe says no for another reason.
    #[error("Stripe answered with status {0}")]
    Refused(u16),
    /// Stripe was not reached or broke off.
    #[error("no answer from Stripe: {0}")]
    NoAnswer(Trouble),
    /// Something else than the API answered.
    #[error("the answer is not Stripe's")]
    Foreign,
}

#[derive(Deserialize)]
struct List<'a> {
    #[serde(borrow)]
    data: Vec<&'a RawValue>,
    has_more: bool,
}

impl Client {
    /// One page of the list, of at most `limit` events, behind the event `after` or from the newest one.
    ///
    /// # Errors
    /// When Stripe does not show it, or says that there is more behind a page on which there is nothing.
    pub async fn events(
        &self,
        query: &EventsQuery,
        (after, limit): (Option<&str>, usize),
        header: &AccountHeader,
    ) -> Result<EventsPage, ReadError> {
        let outgoing = Outgoing::read(LIST, encoded(query, after, limit), header.clone());
        let answer = self.read(outgoing).await?;
        let list: List<'_> = serde_json::from_slice(&answer.body).map_err(|_| ReadError::Foreign)?;
        if list.has_more && list.data.is_empty() {
            return Err(ReadError::Foreign);
        }
        let events = list.data.iter().map(|event| event.get().to_owned()).collect();
        Ok(EventsPage { events, has_more: list.has_more, date_s: answer.date_s })
    }

    /// A thin event with what its notification leaves out.
    ///
    /// # Errors
    /// When Stripe does not show it.
    pub async fn full_thin_event(&self, id: &str, header: &AccountHeader) -> Result<Bytes, ReadError> {
        let path = format!("/v2/core/events/{id}");
        let outgoing = Outgoing::read(&path, String::new(), header.clone());
        Ok(self.read(Outgoing { template: THIN_EVENT.to_owned(), ..outgoing }).await?.body)
    }

    /// The object at a path that Stripe named.
    ///
    /// # Errors
    /// When Stripe does not show it.
    pub async fn object(&self, path: &str, header: &AccountHeader) -> Result<Bytes, ReadError> {
        Ok(self.read(object_at(path, header)).await?.body)
    }

    async fn read(&self, outgoing: Outgoing) -> Result<Answer, ReadError> {
        match self.send_once(&outgoing).await {
            Attempt::Answered(answer) => match answer.status {
                200 => Ok(answer),
                401 => Err(ReadError::KeyRefused),
                403 => Err(ReadError::NoPermission(outgoing.path)),
                404 if answer.error().is_some() => Err(ReadError::Missing),
                429 => Err(ReadError::Limited),
                status => Err(ReadError::Refused(status)),
            },
            Attempt::NotSent(trouble) | Attempt::Broken(trouble) => Err(ReadError::NoAnswer(trouble)),
        }
    }
}

fn object_at(path: &str, header: &AccountHeader) -> Outgoing {
    Outgoing { template: OBJECT.to_owned(), ..Outgoing::read(path, String::new(), header.clone()) }
}

fn encoded(query: &EventsQuery, after: Option<&str>, limit: usize) -> String {
    let mut params = Params::default();
    let mut add = |name: &str, value: &str| params.push(name, value, Sensitivity::Public);
    add("limit", &limit.to_string());
    add("created[gte]", &query.from_s.to_string());
    add("created[lt]", &query.before_s.to_string());
    for kind in &query.types {
        add("types[]", kind);
    }
    if query.undelivered {
        add("delivery_success", "false");
    }
    if let Some(after) = after {
        add("starting_after", after);
    }
    params.encode()
}

#[cfg(test)]
mod tests {
    use super::super::script::{Script, reply};
    use super::*;

    #[tokio::test]
    async fn events_come_as_they_stand_in_the_answer() {
        let event = r#"{ "id":"evt_2",  "amount":1.50 }"#;
        let list = format!(r#"{{"object":"list","data":[{event},{{"id":"evt_1"}}],"has_more":true}}"#);
        let date = "Date: Thu, 01 Jan 1970 00:00:25 GMT\r\n";
        let script = Script::start(vec![reply(200, date, &list)]).await;
        let query = EventsQuery {
            from_s: 10,
            before_s: 20,
            types: vec!["refund.created".to_owned(), "refund.failed".to_owned()],
            undelivered: true,
        };
        let page = script.client().events(&query, (Some("evt_3"), 10), &AccountHeader::None).await.unwrap();
        let events = vec![event.into(), r#"{"id":"evt_1"}"#.into()];
        assert_eq!(page, EventsPage { events, has_more: true, date_s: Some(25) });
        let requests = script.requests().await;
        for part in [
            "limit=10&",
            "created[gte]=10",
            "created[lt]=20",
            "types[]=refund.created&types[]=refund.failed",
            "delivery_success=false",
            "starting_after=evt_3",
        ] {
            assert!(requests[0].contains(part), "{part}: {}", requests[0]);
        }
    }

    #[tokio::test]
    async fn a_read_is_not_tried_again() {
        let missing = r#"{"error":{"message":"No such event","type":"invalid_request_error"}}"#;
        let script =
            Script::start(vec![reply(429, "", "{}"), reply(404, "", missing), reply(200, "", "<html>")])
                .await;
        let client = script.client();
        let list = async || {
            client.events(&EventsQuery::default(), (None, EVENTS_PAGE_MAX), &AccountHeader::None).await
        };
        assert_eq!(list().await, Err(ReadError::Limited));
        assert_eq!(client.full_thin_event("evt_1", &AccountHeader::None).await, Err(ReadError::Missing));
        assert_eq!(list().await, Err(ReadError::Foreign));
        assert!(script.requests().await[1].starts_with("GET /v2/core/events/evt_1 "));
    }

    #[test]
    fn objects_at_whatever_paths_are_limited_as_one() {
        for path in
            ["/v1/refunds/re_1", "/v1/customers/cus_1/sources/src_1", "/v1/accounts/acct_1/persons/p_1"]
        {
            let outgoing = object_at(path, &AccountHeader::None);
            assert_eq!((outgoing.template.as_str(), outgoing.path.as_str()), (OBJECT, path));
        }
    }

    #[tokio::test]
    async fn more_behind_an_empty_page_is_no_answer_of_stripes() {
        let list = r#"{"object":"list","data":[],"has_more":true}"#;
        let script = Script::start(vec![reply(200, "", list)]).await;
        let page = script.client().events(&EventsQuery::default(), (None, 1), &AccountHeader::None).await;
        assert_eq!(page, Err(ReadError::Foreign));
    }
}
