//! Freezing and thawing by an operator's word: durable and on record in one transaction, before anybody is told.

use prost_types::Timestamp;

use super::super::accounts::Account;
use super::super::call::Gateway;
use super::super::context::Context;
use super::super::fault::{Code, Fault, Reason, Retry};
use super::super::freezes::{Freeze, KIND};
use super::super::outcome;
use super::Errand;
use crate::contract::{self, Params, Sensitivity, Violations};
use crate::domain::limits::FREEZES_MAX;
use crate::domain::operation::Mode;
use crate::policy::Facts;
use crate::proto::v1::{
    self, FreezeWritesRequest, FreezeWritesResponse, ListFreezesRequest, ListFreezesResponse,
    UnfreezeWritesRequest, UnfreezeWritesResponse,
};
use crate::store::{self, Batch, Entry};

const FREEZE: &str = "tollgate.v1.AdminService/FreezeWrites";
const UNFREEZE: &str = "tollgate.v1.AdminService/UnfreezeWrites";
const LIST: &str = "tollgate.v1.AdminService/ListFreezes";
/// What begins the name of a freeze; the rest is that of the audit record that began it.
const ID_PREFIX: &str = "frz_";

impl Gateway {
    /// Freezes changes.
    ///
    /// # Errors
    /// PERMISSION_DENIED for a caller that is no operator, INVALID_ARGUMENT or NOT_FOUND for a scope that does not exist,
    /// UNAVAILABLE when it cannot be made durable.
    pub async fn freeze_writes(
        &self,
        context: &Context,
        request: &FreezeWritesRequest,
    ) -> Result<FreezeWritesResponse, Fault> {
        let mut params = Params::default();
        for (name, value) in [
            ("caller", &request.caller),
            ("method", &request.method),
            ("account", &request.account),
            ("reason", &request.reason),
        ] {
            if !value.is_empty() {
                params.push(name, value.as_str(), Sensitivity::Public);
            }
        }
        let work = async |errand: &mut Errand| {
            let freeze = self.asked_freeze(context, request, errand)?;
            self.judge_scope(context, &freeze, errand)?;
            self.freeze(&freeze, errand).await?;
            tracing::warn!(freeze = freeze.id, scope = freeze.scope(), by = freeze.by, "changes are frozen");
            Ok(self.freeze_message(&freeze))
        };
        let (freeze, call) = self.errand(context, FREEZE, params, work).await?;
        Ok(FreezeWritesResponse { freeze: Some(freeze), call: Some(call) })
    }

    /// Lifts a freeze.
    ///
    /// # Errors
    /// As for [`Gateway::freeze_writes`]; NOT_FOUND when there is no such freeze.
    pub async fn unfreeze_writes(
        &self,
        context: &Context,
        request: &UnfreezeWritesRequest,
    ) -> Result<UnfreezeWritesResponse, Fault> {
        let mut params = super::id(&request.id);
        params.push("reason", request.reason.as_str(), Sensitivity::Public);
        let work = async |errand: &mut Errand| {
            checked(Violations::of(request))?;
            let freeze = self.unfreeze(context, &request.id, errand).await?;
            tracing::warn!(freeze = freeze.id, by = context.caller.name, "a freeze was lifted");
            Ok(self.freeze_message(&freeze))
        };
        let (freeze, call) = self.errand(context, UNFREEZE, params, work).await?;
        Ok(UnfreezeWritesResponse { freeze: Some(freeze), call: Some(call) })
    }

    /// Lists what is frozen.
    ///
    /// # Errors
    /// PERMISSION_DENIED for a caller that is no operator.
    pub async fn list_freezes(
        &self,
        context: &Context,
        _request: &ListFreezesRequest,
    ) -> Result<ListFreezesResponse, Fault> {
        let list = async |_: &mut Errand| {
            Ok(self.freezes.list().iter().map(|freeze| self.freeze_message(freeze)).collect())
        };
        let (freezes, call) = self.errand(context, LIST, Params::default(), list).await?;
        Ok(ListFreezesResponse { freezes, call: Some(call) })
    }

    fn asked_freeze(
        &self,
        context: &Context,
        request: &FreezeWritesRequest,
        errand: &mut Errand,
    ) -> Result<Freeze, Fault> {
        checked(Violations::of(request))?;
        let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let method = given(request.method.trim_start_matches("tollgate.v1."));
        if !method.as_deref().is_none_or(changes_something) {
            let known = "must name an RPC that changes something, such as `RefundService/CreateRefund`, or a service that has one";
            return Err(Fault::invalid_field("method", known));
        }
        let account = match request.account.as_str() {
            "" => None,
            alias => Some(self.accounts.named(alias)?),
        };
        if let Some(account) = account {
            errand.record.account = Some(account.id.clone());
            errand.record.mode = Some(account.mode);
        }
        Ok(Freeze {
            id: format!("{ID_PREFIX}{}", errand.record.id.trim_start_matches("aud_")),
            caller: given(&request.caller),
            method,
            account: account.map(|account| (account.id.clone(), account.mode)),
            reason: request.reason.clone(),
            by: context.caller.name.clone(),
            actor: context.actor.clone(),
            at_ms: errand.record.at_ms,
        })
    }

    /// Judges the call at each account that the freeze stops: whoever may act on one of them may not stop the others, nor
    /// let them go.
    fn judge_scope(&self, context: &Context, freeze: &Freeze, errand: &mut Errand) -> Result<(), Fault> {
        let is_stopped = |account: &Account| {
            freeze.account.as_ref().is_none_or(|(id, mode)| (id, *mode) == (&account.id, account.mode))
        };
        for account in self.accounts.all().filter(|account| is_stopped(account)) {
            self.judge(context, account, Facts::default(), &mut errand.record)?;
        }
        Ok(())
    }

    /// Holds from before it is durable: between the two, a change would slip through.
    async fn freeze(&self, freeze: &Freeze, errand: &mut Errand) -> Result<(), Fault> {
        let _turn = self.freezes.turn.lock().await;
        if self.freezes.count() >= FREEZES_MAX {
            return Err(too_many());
        }
        let batch = batch(&freeze.id, Some(freeze), errand)?;
        self.freezes.add(freeze.clone());
        match self.store.commit(batch).await {
            Ok(_) => {
                errand.kept = true;
                Ok(())
            }
            Err(error @ store::Error::Uncertain) => {
                Err(outcome::store_down(&error, "it is frozen until the next start, and perhaps longer"))
            }
            Err(error) => {
                self.freezes.remove(&freeze.id);
                Err(outcome::store_down(&error, "nothing is frozen"))
            }
        }
    }

    /// Holds until its end is durable.
    async fn unfreeze(&self, context: &Context, id: &str, errand: &mut Errand) -> Result<Freeze, Fault> {
        let _turn = self.freezes.turn.lock().await;
        let freeze = self.freezes.list().iter().find(|freeze| freeze.id == id).cloned();
        let freeze = freeze.ok_or_else(|| not_found(id))?;
        self.judge_scope(context, &freeze, errand)?;
        let kept = self.store.commit(batch(id, None, errand)?).await;
        kept.map_err(|error| outcome::store_down(&error, "the freeze holds on"))?;
        errand.kept = true;
        self.freezes.remove(id);
        Ok(freeze)
    }

    fn freeze_message(&self, freeze: &Freeze) -> v1::Freeze {
        let (id, mode) = freeze.account.clone().unzip();
        let account = self
            .accounts
            .all()
            .find(|account| (Some(&account.id), Some(account.mode)) == (id.as_ref(), mode));
        v1::Freeze {
            id: freeze.id.clone(),
            caller: freeze.caller.clone().unwrap_or_default(),
            method: freeze.method.clone().unwrap_or_default(),
            account: account.map(|account| account.alias.clone()).unwrap_or_default(),
            account_id: id.unwrap_or_default(),
            livemode: mode == Some(Mode::Live),
            reason: freeze.reason.clone(),
            frozen_by: freeze.by.clone(),
            actor: freeze.actor.clone(),
            frozen: Some(Timestamp {
                seconds: freeze.at_ms.div_euclid(1000),
                nanos: i32::try_from(freeze.at_ms.rem_euclid(1000) * 1_000_000).unwrap_or_default(),
            }),
        }
    }
}

/// A freeze, or its end, with the record of the call.
fn batch(id: &str, freeze: Option<&Freeze>, errand: &Errand) -> Result<Batch, Fault> {
    let body = freeze.map(serde_json::to_vec).transpose().map_err(|error| {
        Fault::new(Code::Internal, Reason::Internal, format!("it cannot be put on record: {error}"))
    })?;
    let audit = vec![errand.row()?];
    let entries = vec![Entry { kind: KIND, id: id.to_owned(), body }];
    Ok(Batch { entries, audit, ..Batch::default() })
}

fn changes_something(method: &str) -> bool {
    match method.split_once('/') {
        Some((service, rpc)) => contract::find(service, rpc).is_some_and(|spec| spec.mutates()),
        None => contract::METHODS.iter().any(|spec| spec.service == method && spec.mutates()),
    }
}

fn checked(violations: Violations) -> Result<(), Fault> {
    let violations = violations.into_vec();
    if violations.is_empty() { Ok(()) } else { Err(Fault::invalid(violations)) }
}

fn not_found(id: &str) -> Fault {
    let mut fault = Fault::new(Code::NotFound, Reason::FreezeNotFound, "nothing is frozen under this id");
    fault.resource = Some(("freeze".to_owned(), id.to_owned()));
    fault.retry(Retry::Never)
}

fn too_many() -> Fault {
    let message = format!("there are {FREEZES_MAX} freezes, the most at once; freeze more at once instead");
    Fault::new(Code::ResourceExhausted, Reason::Overloaded, message)
        .with("limit", "FREEZES_MAX")
        .retry(Retry::Never)
}
