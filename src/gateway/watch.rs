//! One object as it is, and then its events: where the events start is settled before the object is read, so that none is
//! missed. What the object looks like is the contract's business.

use std::sync::Arc;

use super::accounts::Account;
use super::call::Gateway;
use super::context::Context;
use super::events::{EventStream, fault, message::timestamp};
use super::fault::Fault;
use super::read::{decode, success, undecodable};
use super::redact::without_client_secrets;
use crate::contract::{self, METHODS, Params, Sensitivity, Spec, Violations};
use crate::events::{Filter, Start, Types};
use crate::proto::v1::{EventFilter, ObjectSnapshot, WatchObjectRequest};
use crate::stripe::{Body, Outgoing, STRIPE_VERSION};

const WATCH: &str = "tollgate.v1.EventService/WatchObject";

impl Gateway {
    /// Reads an object and opens the stream of its events.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for an id by which the contract can read nothing, PERMISSION_DENIED where the caller may not read
    /// the object, and what Stripe says to the read.
    pub async fn watch_object(
        &self,
        context: &Context,
        request: &WatchObjectRequest,
    ) -> Result<(ObjectSnapshot, EventStream), Fault> {
        let mut params = Params::default();
        params.push("id", request.id.as_str(), Sensitivity::Public);
        let open = async {
            let account = self.asked_account(&request.account, Violations::of(request).into_vec())?;
            let spec = retrieval(&request.id).ok_or_else(unreadable)?;
            self.judge_retrieval(&context.caller, spec, (account, &request.id))?;
            let start = self.feed.cursor(*self.feed.head().borrow());
            let mut snapshot = self.snapshot(context, spec, (account, &request.id)).await?;
            snapshot.cursor = start.encode();
            let viewer = self.viewer(&context.caller, account);
            let about = EventFilter { object_id: request.id.clone(), ..EventFilter::default() };
            let filter =
                Filter::new(account.log_alias(), Types::default()).about(Some(&about), viewer.clone());
            let subscription = self.feed.subscribe(Start::After(start), filter).await;
            let subscription = subscription.map_err(|error| fault(&error))?;
            let reader = (context.clone(), Arc::clone(account));
            Ok((snapshot, EventStream::new((WATCH, subscription), reader, viewer)))
        };
        let (opened, _) = self.read_own(context, (WATCH, Some(&request.account)), params, open).await?;
        Ok(opened)
    }

    /// The object as Stripe has it now; from where its events follow is still to be said.
    async fn snapshot(
        &self,
        context: &Context,
        spec: &'static Spec,
        (account, id): (&Account, &str),
    ) -> Result<ObjectSnapshot, Fault> {
        let sent =
            account.stripe.send(&request(spec, id, account), &context.sender(), context.deadline).await;
        let answer = success(sent.last())?;
        let json = decode(spec, answer)?;
        Ok(ObjectSnapshot {
            object: contract::typed(&json).map_err(|error| undecodable(&error, answer))?,
            json: without_client_secrets(&String::from_utf8_lossy(&answer.body)).into_owned(),
            cursor: String::new(),
            read: Some(timestamp(self.clock.wall())),
        })
    }
}

/// The read for which an id is enough, by what the id begins with.
fn retrieval(id: &str) -> Option<&'static Spec> {
    METHODS.iter().copied().find(|spec| spec.id_prefixes.iter().any(|prefix| id.starts_with(prefix)))
}

fn request(spec: &Spec, id: &str, account: &Account) -> Outgoing {
    Outgoing {
        verb: spec.verb,
        host: spec.host,
        template: spec.path.to_owned(),
        path: spec.path.replace("{id}", id),
        query: String::new(),
        body: Body::Empty,
        idempotency_key: None,
        version: STRIPE_VERSION.to_owned(),
        account: account.header.clone(),
    }
}

fn unreadable() -> Fault {
    let prefixes: Vec<String> =
        METHODS.iter().flat_map(|spec| spec.id_prefixes).map(|prefix| format!("`{prefix}`")).collect();
    Fault::invalid_field(
        "id",
        format!("is of a kind that cannot be read by its id alone; ids begin with {}", prefixes.join(", ")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::Effect;

    #[test]
    fn an_id_leads_to_the_one_read_of_its_kind() {
        for (id, name) in [
            ("re_1", "RefundService.GetRefund"),
            ("pyr_1", "RefundService.GetRefund"),
            ("cus_1", "CustomerService.GetCustomer"),
            ("pi_1", "PaymentIntentService.GetPaymentIntent"),
            ("file_1", "FileService.GetFile"),
        ] {
            assert_eq!(retrieval(id).map(Spec::name).as_deref(), Some(name));
        }
        for id in ["", "re", "txi_1", "evt_1"] {
            assert!(retrieval(id).is_none(), "{id}");
        }
    }

    #[test]
    fn what_is_read_by_its_id_needs_nothing_else_and_is_of_one_kind() {
        let prefixes: Vec<&str> = METHODS.iter().flat_map(|spec| spec.id_prefixes).copied().collect();
        for spec in METHODS.iter().filter(|spec| !spec.id_prefixes.is_empty()) {
            assert_eq!((spec.effect, spec.path.matches('{').count()), (Effect::Read, 1), "{}", spec.name());
            assert!(spec.path.ends_with("/{id}") && !spec.object.is_empty(), "{}", spec.name());
        }
        for prefix in &prefixes {
            let same = prefixes.iter().filter(|other| other.starts_with(prefix)).count();
            assert_eq!(same, 1, "{prefix}");
        }
    }

    #[test]
    fn every_object_of_the_contract_has_a_typed_form() {
        for spec in METHODS.iter().filter(|spec| !spec.object.is_empty()) {
            let object = serde_json::json!({"object": spec.object});
            assert!(contract::typed(&object).unwrap().is_some(), "{}", spec.name());
        }
    }
}
