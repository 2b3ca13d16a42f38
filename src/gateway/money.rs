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
use crate::ledger::{Asked, Claim, Preview, Record, Sending, Settled, Spend, State};
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
        // What only a rule asked for is kept with the entry too: a replay is judged by it, and no budget counts it.
        asked.claim = facts.clone().claim(context, asked.spec).filter(|_| needed || budgeted);
        Ok(facts)
    }

    /// Whether a budget speaks of what the caller moves by this RPC.
    fn is_budgeted(&self, context: &Context, spec: &Spec) -> bool {
        let caller = &context.caller;
        spec.money.is_some() && self.ledger.budgets().covers(&caller.name, &caller.groups, &spec.name())
    }

    /// The money facts of a change. With `needed`, those that the request leaves out are looked for: an operation that may
    /// have taken effect keeps those of its first call, every other one gets those that Stripe shows now. The currency is
    /// that of the object which the change is about, whatever the request says.
    ///
    /// # Errors
    /// Stripe's refusal to show the object, INVALID_ARGUMENT for another currency than the object's and with
    /// `AMOUNT_UNKNOWN` where nothing tells them, UNAVAILABLE when the store or Stripe cannot be read.
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
        let in_path = path_values(&asked.outgoing.template, &asked.outgoing.path);
        let from_path = |name: &str| in_path.iter().find(|(own, _)| *own == name).map(|(_, value)| *value);
        let read =
            money.reads.iter().find_map(|read| Some((read, param(read.by).or_else(|| from_path(read.by))?)));
        if !needed || (read.is_none() && named.known().is_some()) {
            return Ok(named);
        }
        let kept = self.kept(asked).await?;
        if let Some(kept) = kept.as_ref().filter(|kept| kept.known().is_some()) {
            return Ok(kept.clone());
        }
        // What is answered from memory or sent again as it was moves nothing of this call's, so it is answered without.
        let otherwise = || kept.clone().ok_or_else(|| unknown(money));
        let Some((read, id)) = read else { return otherwise() };
        let sender = context.sender().ahead_of(&asked.outgoing);
        let question = request(read, id, &asked.outgoing);
        let sent = account.stripe.send(&question, &sender, context.deadline).await;
        let object = success(sent.last())?.json().unwrap_or_default();
        let currency = text(&object, read.currency);
        if let (Some(named), Some(own)) = (&named.currency, &currency)
            && named != own
        {
            let what = format!("is not the currency of what the change is about, which is `{own}`");
            return Err(Fault::invalid_field(money.currency, what));
        }
        if kept.is_some() {
            // What is left by now is not what the change asked for then.
            let amount = named.amount.or_else(|| kept.and_then(|kept| kept.amount));
            return Ok(Money { amount, currency, to_be_named: false });
        }
        let amount = named.amount.or_else(|| amount(&object, read));
        if amount.is_none() || currency.is_none() {
            return Err(unknown(money));
        }
        Ok(Money { to_be_named: named.amount.is_none() && !money.amount.is_empty(), amount, currency })
    }

    /// The facts of an earlier call, as far as its entry tells them; `None` where this one would begin anew.
    async fn kept(&self, asked: &Asked<'_>) -> Result<Option<Money>, Fault> {
        let failed = |error| self.unrecorded(&error);
        let how = match self.ledger.preview(asked.clone()).await.map_err(failed)? {
            Preview::Send { how, .. } => Some(how),
            Preview::Answer(_) | Preview::Look(_) | Preview::OverBudget(_) => None,
        };
        if matches!(how, Some(Sending::New | Sending::NextGeneration)) {
            return Ok(None);
        }
        let entry = self.ledger.entry(asked.operation.hash()).await.map_err(failed)?;
        let Some(record) = entry.map(|entry| entry.record) else { return Ok(None) };
        Ok(match &record.spend {
            Some(Spend { amount, currency, .. }) => {
                Some(Money { amount: Some(*amount), currency: Some(currency.clone()), to_be_named: false })
            }
            // Nothing came of it, so the bytes of this call go instead.
            None if how == Some(Sending::Resend { ambiguous: false }) => None,
            None => Some(stored(&record, asked.spec)),
        })
    }
}

/// What an entry tells of its money that was written when nobody asked for it: in the object that came of it, or in the
/// bytes that were sent.
fn stored(record: &Record, spec: &Spec) -> Money {
    let object = match &record.state {
        State::Settled(Settled::Succeeded(success)) => success.json.as_deref(),
        _ => None,
    };
    let object: Value = object.and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default();
    let form = match record.outgoing().map(|outgoing| &outgoing.body) {
        Some(Body::Form(form)) => form.as_str(),
        _ => "",
    };
    let sent = |name: &str| {
        let mut pairs = form.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(own, _)| !name.is_empty() && *own == name).map(|(_, value)| value.to_owned())
    };
    let (amount, currency) =
        spec.money.as_ref().map_or((None, None), |money| (sent(money.amount), sent(money.currency)));
    Money {
        amount: at(&object, "amount").and_then(Value::as_i64).or_else(|| amount?.parse().ok()),
        currency: text(&object, "currency").or(currency),
        to_be_named: false,
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
    fn an_entry_that_nobody_counted_tells_its_money_by_its_object_or_its_bytes() {
        let spec = contract::find("RefundService", "CreateRefund").unwrap();
        let facts = |state: &str| {
            let entry = format!(
                r#"{{"version":1,"operation":{{"namespace":"shop","account":"acct_1","mode":"test","rpc":"refunds.create","order_id":"1001","operation_id":""}},"generation":1,"fingerprint":{{"version":1,"fields":{{}}}},"first_sent_ms":5,"last_ms":9,"state":{state}}}"#
            );
            let Money { amount, currency, .. } = stored(&Record::decode(entry.as_bytes()).unwrap(), spec);
            (amount, currency)
        };
        let object = r#"{\"amount\":300,\"currency\":\"usd\"}"#;
        let made = format!(
            r#"{{"settled":{{"succeeded":{{"json":"{object}","request_id":null,"object_id":"re_1"}}}}}}"#
        );
        assert_eq!(facts(&made), (Some(300), Some("usd".to_owned())));
        let mut outgoing = Outgoing {
            verb: Verb::Post,
            host: Host::Api,
            template: "/v1/refunds".to_owned(),
            path: "/v1/refunds".to_owned(),
            query: String::new(),
            body: Body::Empty,
            idempotency_key: None,
            version: STRIPE_VERSION.to_owned(),
            account: crate::domain::account::AccountHeader::None,
        };
        for (form, amount) in [("charge=ch_1&amount=200", Some(200)), ("charge=ch_1", None)] {
            outgoing.body = Body::Form(form.to_owned());
            let outgoing = serde_json::to_string(&outgoing).unwrap();
            let unknown = format!(r#"{{"unknown":{{"outgoing":{outgoing},"conflict":false}}}}"#);
            assert_eq!(facts(&unknown), (amount, None), "{form}");
        }
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
