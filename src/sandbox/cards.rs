//! The documented test cards and what each does. It must not carry the effects out.
//! Source: <https://docs.stripe.com/testing>.

/// Why a card declines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Decline {
    pub(super) code: &'static str,
    pub(super) decline_code: &'static str,
    pub(super) message: &'static str,
    /// What Stripe advises; empty when it says nothing.
    pub(super) advice: &'static str,
    /// The card can be attached and declines only when charged.
    pub(super) attaches: bool,
    /// Radar and not the issuer said no.
    pub(super) blocked: bool,
}

/// What happens when the card is charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The payment succeeds; effects after it go by the card's name.
    Succeeds,
    /// The payment is refused.
    Declines(Decline),
    /// The customer must authenticate; `once` says that a card set up for later is let through off session.
    Authenticates {
        /// Set up once, off-session payments need nothing more.
        once: bool,
    },
}

/// One test card.
#[derive(Debug, Clone, Copy)]
pub(super) struct Card {
    /// The template's name, such as `pm_card_visa`.
    pub(super) name: &'static str,
    pub(super) number: &'static str,
    pub(super) outcome: Outcome,
}

impl Card {
    /// The last four digits.
    pub(super) fn last4(&self) -> &'static str {
        self.number.get(self.number.len().saturating_sub(4)..).unwrap_or_default()
    }

    /// The brand, by the number's first digits.
    pub(super) fn brand(&self) -> &'static str {
        match self.number.get(..2).unwrap_or_default() {
            "34" | "37" => "amex",
            "30" | "36" | "38" => "diners",
            "35" => "jcb",
            "60" => "discover",
            "62" => "unionpay",
            other if other.starts_with('5') => "mastercard",
            _ => "visa",
        }
    }

    /// How the card is funded, by the template's name.
    pub(super) fn funding(&self) -> &'static str {
        match self.name.rsplit('_').next() {
            Some("debit") => "debit",
            Some("prepaid") => "prepaid",
            _ => "credit",
        }
    }

    /// Radar's level and score.
    pub(super) fn risk(&self) -> (&'static str, i64) {
        match self.name {
            "pm_card_radarBlock" | "pm_card_riskLevelHighest" => ("highest", 90),
            "pm_card_riskLevelElevated" => ("elevated", 70),
            _ => ("normal", 20),
        }
    }
}

const fn card(name: &'static str, number: &'static str) -> Card {
    Card { name, number, outcome: Outcome::Succeeds }
}

const fn authenticates(name: &'static str, number: &'static str, once: bool) -> Card {
    Card { name, number, outcome: Outcome::Authenticates { once } }
}

const fn declines(
    name: &'static str,
    number: &'static str,
    (code, decline_code): (&'static str, &'static str),
    message: &'static str,
    advice: &'static str,
) -> Card {
    let decline = Decline { code, decline_code, message, advice, attaches: false, blocked: false };
    Card { name, number, outcome: Outcome::Declines(decline) }
}

const DECLINED: &str = "Your card was declined.";

const CARDS: &[Card] = &[
    card("pm_card_visa", "4242424242424242"),
    card("pm_card_visa_debit", "4000056655665556"),
    card("pm_card_mastercard", "5555555555554444"),
    card("pm_card_mastercard_debit", "5200828282828210"),
    card("pm_card_mastercard_prepaid", "5105105105105100"),
    card("pm_card_amex", "378282246310005"),
    card("pm_card_discover", "6011111111111117"),
    card("pm_card_diners", "3056930009020004"),
    card("pm_card_jcb", "3566002020360505"),
    card("pm_card_unionpay", "6200000000000005"),
    card("pm_card_bypassPending", "4000000000000077"),
    card("pm_card_bypassPendingInternational", "4000003720000278"),
    card("pm_card_pendingRefund", "4000000000007726"),
    card("pm_card_refundFail", "4000000000005126"),
    card("pm_card_createDispute", "4000000000000259"),
    card("pm_card_createDisputeProductNotReceived", "4000000000002685"),
    card("pm_card_createDisputeInquiry", "4000000000001976"),
    card("pm_card_createIssuerFraudRecord", "4000000000005423"),
    card("pm_card_createMultipleDisputes", "4000000404000079"),
    card("pm_card_createCe3EligibleDispute", "4000000404000038"),
    card("pm_card_createComplianceDispute", "4000008400000779"),
    card("pm_card_createMastercardComplianceDispute", "5105008400000002"),
    card("pm_card_createAutoRepresentmentEligibleDispute", "4000000001000043"),
    card("pm_card_createRapidDisputeResolutionDispute", "4000000000000101"),
    card("pm_card_createCe3BlockDispute", "4000000000000101"),
    card("pm_card_createEthocaAlert", "5555555555554444"),
    card("pm_card_riskLevelHighest", "4000000000004954"),
    card("pm_card_riskLevelElevated", "4000000000009235"),
    card("pm_card_cvcCheckFail", "4000000000000101"),
    card("pm_card_avsFail", "4000000000000010"),
    authenticates("pm_card_authenticationRequired", "4000002760003184", false),
    authenticates("pm_card_authenticationRequiredOnSetup", "4000002500003155", true),
    authenticates("pm_card_authenticationRequiredSetupForOffSession", "4000003800000446", true),
    authenticates("pm_card_threeDSecure2Required", "4000000000003220", false),
    card("pm_card_threeDSecureOptional", "4000000000003055"),
    declines(
        "pm_card_visa_chargeDeclined",
        "4000000000000002",
        ("card_declined", "generic_decline"),
        DECLINED,
        "try_again_later",
    ),
    declines(
        "pm_card_visa_chargeDeclinedInsufficientFunds",
        "4000000000009995",
        ("card_declined", "insufficient_funds"),
        "Your card has insufficient funds.",
        "try_again_later",
    ),
    declines(
        "pm_card_visa_chargeDeclinedLostCard",
        "4000000000009987",
        ("card_declined", "lost_card"),
        DECLINED,
        "do_not_try_again",
    ),
    declines(
        "pm_card_visa_chargeDeclinedStolenCard",
        "4000000000009979",
        ("card_declined", "stolen_card"),
        DECLINED,
        "do_not_try_again",
    ),
    declines(
        "pm_card_visa_chargeDeclinedVelocityLimitExceeded",
        "4000000000006975",
        ("card_declined", "card_velocity_exceeded"),
        "Your card is used too often or for too much.",
        "try_again_later",
    ),
    declines(
        "pm_card_chargeDeclinedExpiredCard",
        "4000000000000069",
        ("expired_card", "expired_card"),
        "Your card has expired.",
        "do_not_try_again",
    ),
    declines(
        "pm_card_chargeDeclinedIncorrectCvc",
        "4000000000000127",
        ("incorrect_cvc", "incorrect_cvc"),
        "Your card's security code is incorrect.",
        "confirm_card_data",
    ),
    declines(
        "pm_card_chargeDeclinedProcessingError",
        "4000000000000119",
        ("processing_error", "processing_error"),
        "An error occurred while processing your card.",
        "try_again_later",
    ),
    Card {
        name: "pm_card_chargeCustomerFail",
        number: "4000000000000341",
        outcome: Outcome::Declines(Decline {
            code: "card_declined",
            decline_code: "generic_decline",
            message: DECLINED,
            advice: "try_again_later",
            attaches: true,
            blocked: false,
        }),
    },
    Card {
        name: "pm_card_radarBlock",
        number: "4100000000000019",
        outcome: Outcome::Declines(Decline {
            code: "card_declined",
            decline_code: "fraudulent",
            message: DECLINED,
            advice: "",
            attaches: true,
            blocked: true,
        }),
    },
];

/// The card of a template and its country: `pm_card_...`, the `tok_...` twin, or `pm_card_<country>`. The decliners are
/// also found with or without `visa_` in their names.
pub(super) fn template(name: &str) -> Option<(&'static Card, String)> {
    let short = name.strip_prefix("pm_card_").or_else(|| name.strip_prefix("tok_"))?;
    let named = |card: &&Card| {
        let own = card.name.trim_start_matches("pm_card_");
        own == short || own.strip_prefix("visa_").is_some_and(|own| own.starts_with("charge") && own == short)
    };
    if let Some(card) = CARDS.iter().find(named) {
        return Some((card, "US".to_owned()));
    }
    let country = short.len() == 2 && short.bytes().all(|byte| byte.is_ascii_lowercase());
    CARDS.first().filter(|_| country).map(|card| (card, short.to_uppercase()))
}

/// The test card with that number.
pub(super) fn by_number(number: &str) -> Option<&'static Card> {
    CARDS.iter().find(|card| card.number == number)
}

#[cfg(test)]
mod tests {
    use super::{Outcome, template};

    #[test]
    fn templates_are_found_under_every_documented_spelling() {
        for name in
            ["pm_card_visa", "tok_visa", "pm_card_visa_chargeDeclined", "tok_chargeDeclinedExpiredCard"]
        {
            assert!(template(name).is_some(), "{name}");
        }
        let (card, _) = template("pm_card_chargeDeclinedLostCard").unwrap();
        assert!(matches!(card.outcome, Outcome::Declines(decline) if decline.decline_code == "lost_card"));
        let (card, country) = template("pm_card_de").unwrap();
        assert_eq!((card.last4(), country), ("4242", "DE".to_owned()));
        assert_eq!(template("pm_card_mastercard_prepaid").unwrap().0.funding(), "prepaid");
        assert!(template("pm_1").is_none() && template("pm_card_nonsense").is_none());
    }
}
