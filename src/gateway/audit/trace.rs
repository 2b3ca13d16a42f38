//! Follows an id through the audit log and the event log to the orders it belongs to, and gathers all that is known of
//! those: whichever id of a story is given, the same story comes out.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::story::Story;
use super::{Gateway, checked, message, named, not_found, unread, visible};
use crate::audit::Record;
use crate::contract::Violations;
use crate::domain::caller::Caller;
use crate::domain::identifier::is_name;
use crate::domain::limits::{
    METADATA_STAMP, TRACE_BYTES_MAX, TRACE_EVENTS_MAX, TRACE_ORDERS_MAX, TRACE_RECORDS_MAX,
};
use crate::events::Envelope;
use crate::gateway::context::Context;
use crate::gateway::fault::Fault;
use crate::gateway::judge::Sight;
use crate::proto::v1::{TraceRequest, TraceResponse};
use crate::store::{NewEvent, StoredAudit, StoredEvent};

const TRACE: &str = "tollgate.v1.AuditService/Trace";
/// Reading the audit log is no part of the stories it tells, or each look would change them.
const OWN_SERVICE: &str = "tollgate.v1.AuditService/";

/// An order: namespace and order id.
type Order = (String, String);

/// What has been found.
#[derive(Default)]
struct Found {
    records: BTreeMap<u64, (StoredAudit, Record)>,
    events: BTreeMap<u64, StoredEvent>,
    truncated: bool,
}

impl Gateway {
    /// Tells the story around an id.
    ///
    /// # Errors
    /// INVALID_ARGUMENT without an id, NOT_FOUND when nothing goes by it, UNAVAILABLE when the store cannot be read.
    pub async fn trace(&self, context: &Context, request: &TraceRequest) -> Result<TraceResponse, Fault> {
        let follow = async {
            checked(Violations::of(request))?;
            self.story_of(&context.caller, &request.id).await
        };
        let (told, call) =
            self.read_own(context, (TRACE, None), named(&[("id", &request.id)]), follow).await?;
        Ok(TraceResponse { call: Some(call), ..told })
    }

    async fn story_of(&self, caller: &Caller, id: &str) -> Result<TraceResponse, Fault> {
        let (mut found, sight) = (Found::default(), self.sight(caller));
        self.records_with(&sight, id, &mut found).await?;
        self.events_with(caller, id, &mut found).await?;
        // An event leads to its order by the request that caused it, else by the object it is about.
        for links in [exact_links, object_link] {
            if orders(&found).is_empty() {
                let links: BTreeSet<String> =
                    found.events.values().flat_map(|stored| links(&stored.event)).collect();
                for link in links {
                    self.records_with(&sight, &link, &mut found).await?;
                }
            }
        }
        let orders = orders(&found);
        if !orders.is_empty() {
            let asked = found.events.into_iter().filter(|(_, stored)| stored.event.id == id).collect();
            found = Found { events: asked, ..Found::default() };
            self.gather(caller, &orders, &mut found).await?;
        }
        if found.records.is_empty() && found.events.is_empty() {
            return Err(not_found(id));
        }
        Ok(tell(found, &orders))
    }

    /// Everything that is known of the orders.
    async fn gather(
        &self,
        caller: &Caller,
        orders: &BTreeSet<Order>,
        found: &mut Found,
    ) -> Result<(), Fault> {
        found.truncated |= orders.len() > TRACE_ORDERS_MAX;
        let sight = self.sight(caller);
        for (namespace, order_id) in orders.iter().take(TRACE_ORDERS_MAX) {
            let mut of_term = Found::default();
            self.records_with(&sight, order_id, &mut of_term).await?;
            found.truncated |= of_term.truncated;
            let own = |record: &Record| {
                record.order_id.as_ref() == Some(order_id) && record.namespace == *namespace
            };
            found.records.extend(of_term.records.into_iter().filter(|(_, (_, record))| own(record)));
        }
        let made: BTreeSet<String> =
            found.records.values().filter_map(|(_, record)| record.object_id.clone()).collect();
        let links: BTreeSet<String> = found
            .records
            .values()
            .flat_map(|(_, record)| names(record))
            .chain(made.iter().cloned())
            .collect();
        for object in &made {
            self.records_with(&sight, object, found).await?;
        }
        for link in links {
            self.events_with(caller, &link, found).await?;
        }
        Ok(())
    }

    async fn records_with(&self, sight: &Sight, term: &str, found: &mut Found) -> Result<(), Fault> {
        let page = async |after, count_max| {
            let rows = self.store.audit_with(term, after, count_max, TRACE_BYTES_MAX).await;
            rows.map_err(|error| unread(&error))
        };
        let rows = page(0, TRACE_RECORDS_MAX).await?;
        if let Some(last) = rows.last() {
            found.truncated |= !page(last.sequence, 1).await?.is_empty();
        }
        for stored in rows {
            let seen = visible(sight, &stored).filter(|record| !record.rpc.starts_with(OWN_SERVICE));
            if let Some(record) = seen {
                found.records.insert(stored.sequence, (stored, record));
            }
        }
        Ok(())
    }

    async fn events_with(&self, caller: &Caller, term: &str, found: &mut Found) -> Result<(), Fault> {
        // Events also go by names that are no ids, which are nobody's to ask for.
        if !is_name(term) {
            return Ok(());
        }
        let page = async |after, count_max| {
            let rows = self.store.events_with(term, after, count_max, TRACE_BYTES_MAX).await;
            rows.map_err(|error| unread(&error))
        };
        let rows = page(0, TRACE_EVENTS_MAX).await?;
        if let Some(last) = rows.last() {
            found.truncated |= !page(last.position, 1).await?.is_empty();
        }
        // An event that the policies do not show is no part of the story.
        let shown = rows.into_iter().filter(|stored| {
            let account = self.accounts.resolve(&stored.event.account);
            account.is_some_and(|account| self.may_receive(caller, account, &stored.event.kind))
        });
        found.events.extend(shown.map(|stored| (stored.position, stored)));
        Ok(())
    }
}

fn orders(found: &Found) -> BTreeSet<Order> {
    let records = found.records.values();
    records.filter_map(|(_, record)| Some((record.namespace.clone(), record.order_id.clone()?))).collect()
}

/// What an operation is known by at Stripe.
fn names(record: &Record) -> Vec<String> {
    let own = [&record.operation, &record.idempotency_key].into_iter().flatten();
    own.chain(&record.stripe_request_ids).cloned().collect()
}

/// Stamp, idempotency key and request id of an event: they belong to one operation.
fn exact_links(event: &NewEvent) -> Vec<String> {
    let json: Value = serde_json::from_str(&event.json).unwrap_or_default();
    let stamp =
        json.pointer("/data/object/metadata").and_then(|metadata| metadata.get(METADATA_STAMP)?.as_str());
    let envelope = Envelope::parse(&event.json).ok();
    let request = envelope.map(|envelope| [envelope.idempotency_key, envelope.request_id]);
    let links = stamp.map(str::to_owned).into_iter().chain(request.into_iter().flatten());
    links.filter(|link| !link.is_empty()).collect()
}

fn object_link(event: &NewEvent) -> Vec<String> {
    let envelope = Envelope::parse(&event.json).ok();
    envelope.map(|envelope| envelope.object_id).filter(|id| !id.is_empty()).into_iter().collect()
}

fn tell(found: Found, orders: &BTreeSet<Order>) -> TraceResponse {
    let mut story = Story::default();
    for (stored, record) in found.records.values() {
        story.record(stored.sequence, record);
    }
    for stored in found.events.values() {
        story.event(stored);
    }
    let records = found.records.values().map(|(stored, record)| message::record(stored, record));
    TraceResponse {
        steps: story.steps(),
        records: records.collect(),
        order_ids: orders.iter().map(|(_, order_id)| order_id.clone()).collect(),
        truncated: found.truncated,
        call: None,
    }
}
