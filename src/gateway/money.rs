//! What a change says of money, for rules and budgets: from the request, from the ledger, or read at Stripe where the
//! request leaves it out. It decides nothing.

use serde_json::Value;

use super::accounts::Account;
use super::call::Gateway;
use super::context::Context;
use super::fault::{Code, Fault, Reason, Retry};
use super::read::success;
use crate::contract::{self, Host, MoneyRead, Spec, Verb};
use crate::domain::fingerprint::path_values;
use crate::ledger::{Asked, Claim, Preview, Sending, Spend};
use crate::stripe::{Body, Outgoing, STRIPE_VERSION};

/// What is known of a change's money.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Money {
    /// How much, in the currency's smallest unit, signed as the request would say it.
    pub amount: Option<i64>,
    /// Lower-case three-letter code.
    pub currency: Option<String>,
    /// Whether the amount is to be said to Stripe, since it was read and not named.
    to_be_named: bool,
}

impl Gateway {
    /// Finds out what a change says of money, as far as a budget needs it or with `needed` a rule, and has the change say
    /// what was found out: what is judged is what is sent.
    ///
    /// # Errors
    /// See [`Gateway::money`].
    pub(super) async fn value(
        &self,
        context: &Context,
        account: &Account,
        asked: &mut Asked<'_>,
        needed: bool,
    ) -> Result<Money, Fault> {
        let budgeted = self.is_budgeted(context, asked.spec);
        let facts = self.money(context, account, asked, needed || budgeted).await?;
        facts.name_in(asked.spec, &mut asked.outgoing);
        asked.claim = facts.clone().claim(context, asked.spec).filter(|_| budgeted);
        Ok(facts)
    }

    /// Whether a budget speaks of what the caller moves by this RPC.
    fn is_budgeted(&self, context: &Context, spec: &Spec) -> bool {
        let caller = &context.caller;
        spec.money.is_some() && self.ledger.budgets().covers(&caller.name, &caller.groups, &spec.name())
    }

    /// The money facts of a change. With `needed`, those that the request leaves out are looked for: an operation that may
    /// have taken effect keeps those of its first call, every other one gets those that Stripe shows now.
    ///
    /// # Errors
    /// Stripe's refusal to show the object, INVALID_ARGUMENT / `AMOUNT_UNKNOWN` where nothing tells them, UNAVAILABLE
    /// when the store or Stripe cannot be read.
    async fn money(
        &self,
        context: &Context,
        account: &Account,
        asked: &Asked<'_>,
        needed: bool,
    ) -> Result<Money, Fault> {
        let Some(money) = &asked.spec.money else { return Ok(Money::default()) };
        let param =
            |name: &str| asked.params.iter().find(|pair| pair.name == name).map(|pair| pair.value.as_str());
        let named = Money {
            amount: param(money.amount).and_then(|amount| amount.parse().ok()),
            currency: param(money.currency).map(str::to_owned),
            to_be_named: false,
        };
        if !needed || (named.amount.is_some() && named.currency.is_some()) {
            return Ok(named);
        }
        if let Some(kept) = self.kept(asked).await? {
            return Ok(kept);
        }
        let in_path = path_values(&asked.outgoing.template, &asked.outgoing.path);
        let from_path = |name: &str| in_path.iter().find(|(own, _)| *own == name).map(|(_, value)| *value);
        let read =
            money.reads.iter().find_map(|read| Some((read, param(read.by).or_else(|| from_path(read.by))?)));
        let Some((read, id)) = read else { return Err(unknown(money)) };
        let sent = account.stripe.send(&request(read, id, &asked.outgoing), context.deadline).await;
        let object = success(sent.last())?.json().unwrap_or_default();
        let amount = named.amount.or_else(|| amount(&object, read));
        let currency = named.currency.or_else(|| text(&object, read.currency));
        if amount.is_none() || currency.is_none() {
            return Err(unknown(money));
        }
        Ok(Money { to_be_named: named.amount.is_none() && !money.amount.is_empty(), amount, currency })
    }

    /// The facts of an earlier call, unless this one would begin anew.
    async fn kept(&self, asked: &Asked<'_>) -> Result<Option<Money>, Fault> {
        let failed = |error| self.unrecorded(&error);
        let anew = matches!(
            self.ledger.preview(asked.clone()).await.map_err(failed)?,
            Preview::Send { how: Sending::New | Sending::NextGeneration, .. }
        );
        let entry = self.ledger.entry(asked.operation.hash()).await.map_err(failed)?;
        let kept = entry.filter(|_| !anew).and_then(|entry| entry.record.spend);
        Ok(kept.map(|Spend { amount, currency, .. }| Money {
            amount: Some(amount),
            currency: Some(currency),
            to_be_named: false,
        }))
    }
}

impl Money {
    /// Amount and currency, where both are known.
    pub(super) fn known(&self) -> Option<(i64, &str)> {
        self.amount.zip(self.currency.as_deref())
    }

    /// Has the change say an amount that its request left out.
    fn name_in(&self, spec: &Spec, outgoing: &mut Outgoing) {
        if let (true, Some(money), Some(amount), Body::Form(form)) =
            (self.to_be_named, &spec.money, self.amount, &mut outgoing.body)
        {
            let and = if form.is_empty() { "" } else { "&" };
            form.push_str(&format!("{and}{}={amount}", money.amount));
        }
    }

    /// What a budget counts. An amount that gives nothing away counts nothing.
    fn claim(self, context: &Context, spec: &Spec) -> Option<Claim> {
        let money = spec.money.as_ref()?;
        let amount =
            self.amount.map(|amount| if money.negative { amount.saturating_neg() } else { amount })?;
        let (caller, groups) = (context.caller.name.clone(), context.caller.groups.clone());
        Some(Claim { caller, groups, currency: self.currency?, amount: amount.max(0) })
    }
}

fn request(read: &MoneyRead, id: &str, outgoing: &Outgoing) -> Outgoing {
    Outgoing {
        verb: Verb::Get,
        host: Host::Api,
        template: read.get.to_owned(),
        path: read.get.replace(&format!("{{{}}}", read.by), id),
        query: read.query.to_owned(),
        body: Body::Empty,
        idempotency_key: None,
        version: STRIPE_VERSION.to_owned(),
        account: outgoing.account.clone(),
    }
}

/// What is left of the object's amount; `None` when nothing is, since what cannot be told is not guessed.
fn amount(object: &Value, read: &MoneyRead) -> Option<i64> {
    let whole = at(object, read.amount)?.as_i64()?;
    let gone = at(object, read.less).and_then(Value::as_i64).unwrap_or_default();
    whole.checked_sub(gone).filter(|left| *left > 0)
}

fn text(object: &Value, path: &str) -> Option<String> {
    at(object, path)?.as_str().map(str::to_owned)
}

/// The value at a path with dots; an empty path has none.
fn at<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    if path.is_empty() { None } else { path.split('.').try_fold(object, |value, name| value.get(name)) }
}

fn unknown(money: &contract::Money) -> Fault {
    let field = if money.amount.is_empty() { "id" } else { money.amount };
    let mut fault = Fault::invalid_field(
        field,
        "is left out and cannot be read from what the change is about, and a rule or a budget of the gateway's \
         needs the amount and the currency; name them",
    );
    (fault.code, fault.reason) = (Code::InvalidArgument, Reason::AmountUnknown);
    fault.retry(Retry::Never)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn reads() -> &'static [MoneyRead] {
        contract::find("RefundService", "CreateRefund").unwrap().money.as_ref().unwrap().reads
    }

    #[test]
    fn what_is_left_of_a_charge_is_what_was_captured_less_what_went_back() {
        let charge =
            json!({"amount": 900, "amount_captured": 700, "amount_refunded": 300, "currency": "eur"});
        assert_eq!(
            (amount(&charge, &reads()[0]), text(&charge, reads()[0].currency)),
            (Some(400), Some("eur".into()))
        );
        let intent = json!({"currency": "usd", "latest_charge": charge});
        assert_eq!(
            (amount(&intent, &reads()[1]), text(&intent, reads()[1].currency)),
            (Some(400), Some("usd".into()))
        );
        let unpaid = json!({"currency": "usd", "latest_charge": null});
        assert_eq!(amount(&unpaid, &reads()[1]), None);
        let gone = json!({"amount_captured": 700, "amount_refunded": 700});
        assert_eq!(amount(&gone, &reads()[0]), None, "an amount of nothing is no amount");
    }

    #[test]
    fn every_rpc_that_speaks_of_money_can_be_asked_for_its_amount() {
        for spec in contract::METHODS.iter().filter(|spec| spec.money.is_some()) {
            let money = spec.money.as_ref().unwrap();
            assert!(
                spec.mutates() && (!money.amount.is_empty() || !money.reads.is_empty()),
                "{}",
                spec.name()
            );
            for read in money.reads {
                assert!(read.get.contains(&format!("{{{}}}", read.by)), "{}", spec.name());
            }
        }
    }
}
