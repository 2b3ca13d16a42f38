//! The flags by which commands say which events they mean, and the request's fields that they become.

use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

/// Which events.
#[derive(Debug, Args)]
pub(in crate::cli) struct Which {
    /// Types, such as refund.created or charge.*
    #[arg(long, value_delimiter = ',')]
    types: Vec<String>,
    /// Groups of types, in addition
    #[arg(long, value_enum, value_delimiter = ',')]
    presets: Vec<Preset>,
    /// About this object, such as re_...
    #[arg(long, value_name = "ID")]
    object: Option<String>,
    /// About objects of this kind, such as refund
    #[arg(long, value_name = "KIND")]
    object_type: Option<String>,
    /// About this customer and what is theirs, cus_...
    #[arg(long, value_name = "ID")]
    customer: Option<String>,
    /// Of this connected account, acct_...
    #[arg(long, value_name = "ID")]
    connected_account: Option<String>,
    /// Caused by a call for this order, or about what such a call made
    #[arg(long)]
    order_id: Option<String>,
    /// Whose calls caused them
    #[arg(long, value_enum)]
    cause: Option<Cause>,
    /// Alias of the Stripe account [default: the gateway's own]
    #[arg(long)]
    account: Option<String>,
}

/// Groups of types that belong together.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Preset {
    Charges,
    Refunds,
    Payouts,
    PaymentIntents,
    Disputes,
}

impl Preset {
    /// Its name in the contract.
    fn name(self) -> &'static str {
        match self {
            Self::Charges => "EVENT_PRESET_CHARGES",
            Self::Refunds => "EVENT_PRESET_REFUNDS",
            Self::Payouts => "EVENT_PRESET_PAYOUTS",
            Self::PaymentIntents => "EVENT_PRESET_PAYMENT_INTENTS",
            Self::Disputes => "EVENT_PRESET_DISPUTES",
        }
    }
}

/// Whose calls.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Cause {
    /// Your own, and what became of what they made
    Mine,
    /// Requests that did not go through the gateway
    Outside,
}

impl Which {
    /// The fields `account`, `types`, `presets` and `filter` of a request.
    pub(in crate::cli) fn fields(&self) -> Map<String, Value> {
        let cause = self.cause.map(|cause| format!("CAUSE_FILTER_{}", format!("{cause:?}").to_uppercase()));
        let filter: Map<String, Value> = [
            ("object_id", &self.object),
            ("object_type", &self.object_type),
            ("customer", &self.customer),
            ("connected_account", &self.connected_account),
            ("order_id", &self.order_id),
            ("cause", &cause),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), json!(value.as_ref()?))))
        .collect();
        let mut fields = Map::from_iter([
            ("account".to_owned(), json!(self.account)),
            ("types".to_owned(), json!(self.types)),
            (
                "presets".to_owned(),
                json!(self.presets.iter().map(|preset| preset.name()).collect::<Vec<_>>()),
            ),
        ]);
        if !filter.is_empty() {
            fields.insert("filter".to_owned(), Value::Object(filter));
        }
        fields
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::client::{Contract, message};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        which: Which,
    }

    #[test]
    fn every_flag_is_a_field_that_the_contract_has() {
        let line = Line::parse_from(
            "x --types charge.*,refund.created --presets charges,payment-intents,refunds,payouts,disputes --object re_1 --object-type refund --customer cus_1 \
             --connected-account acct_1 --order-id 1001 --cause outside --account eu"
                .split_whitespace(),
        );
        let fields = line.which.fields();
        let named = fields["filter"].as_object().unwrap();
        assert_eq!((named.len(), &named["cause"]), (6, &json!("CAUSE_FILTER_OUTSIDE")));
        assert_eq!(fields["presets"].as_array().unwrap().len(), 5);
        for rpc in ["EventService/Subscribe", "EventService/ListEvents"] {
            let method = Contract::load().unwrap().method(rpc).unwrap();
            assert!(message(&method, Value::Object(fields.clone())).is_ok(), "{rpc}");
        }
    }
}
