//! The table of every key: it drives parsing, the hints of faults and the reference in `docs/config.md`.

mod events;
mod listen;
mod shape;
mod traffic;

pub use self::shape::Shape;

/// One key.
#[derive(Debug)]
pub struct Key {
    /// Path in the TOML file; `*` stands for a name that the operator chooses.
    pub path: &'static str,
    /// Environment variable; empty where there is none.
    pub variable: &'static str,
    /// What the value looks like.
    pub shape: Shape,
    /// Value when nothing is set; empty where there is none.
    pub default: &'static str,
    /// Version of Tollgate that brought it.
    pub since: &'static str,
    /// What it is for, as a sentence.
    pub about: &'static str,
}

/// All keys, in the order of the reference.
pub const KEYS: &[Key] = &[
    Key {
        path: "mode",
        variable: "TOLLGATE_MODE",
        shape: Shape::Choice(&["test", "live"]),
        default: "test",
        since: "0.1.0",
        about: "Side of Stripe that the default account belongs to; its keys must be of it. `live` takes callers and policies.",
    },
    Key {
        path: "stripe.key",
        variable: "TOLLGATE_STRIPE_KEY",
        shape: Shape::Secrets,
        default: "",
        since: "0.1.0",
        about: "Secret key `sk_test_...` or, better, restricted key `rk_test_...`, or with `live` in place of `test` where `mode` is `live`; several while one replaces another, the first being used as long as Stripe takes it. Required.",
    },
    Key {
        path: "stripe.api_base",
        variable: "TOLLGATE_STRIPE_API_BASE",
        shape: Shape::Url,
        default: "https://api.stripe.com",
        since: "0.1.0",
        about: "Base URL of Stripe's API. Plain `http` only on the loopback address, for the sandbox.",
    },
    Key {
        path: "stripe.files_base",
        variable: "TOLLGATE_STRIPE_FILES_BASE",
        shape: Shape::Url,
        default: "https://files.stripe.com",
        since: "0.1.0",
        about: "Base URL of Stripe's file uploads. Plain `http` only on the loopback address.",
    },
    Key {
        path: "stripe.attempt_timeout_s",
        variable: "TOLLGATE_STRIPE_ATTEMPT_TIMEOUT_S",
        shape: Shape::Seconds(1, 600),
        default: "80",
        since: "0.1.0",
        about: "Longest that one HTTP attempt may take. A shorter time makes more outcomes unknown.",
    },
    Key {
        path: "stripe.connect_timeout_s",
        variable: "TOLLGATE_STRIPE_CONNECT_TIMEOUT_S",
        shape: Shape::Seconds(1, 60),
        default: "10",
        since: "0.1.0",
        about: "Longest that a connection to Stripe may take to come up.",
    },
    traffic::REQUESTS,
    traffic::ENDPOINT_REQUESTS,
    traffic::AT_ONCE,
    Key {
        path: "webhook.secret",
        variable: "TOLLGATE_WEBHOOK_SECRET",
        shape: Shape::Secrets,
        default: "",
        since: "0.1.0",
        about: "Signing secret `whsec_...` of the webhook endpoint; several while one is being rotated. Required unless `events.mode` is `poll`.",
    },
    Key {
        path: "accounts.*.mode",
        variable: "",
        shape: Shape::Choice(&["test", "live"]),
        default: "",
        since: "0.1.0",
        about: "Side of Stripe that a further account belongs to; as `mode` where nothing is said.",
    },
    Key {
        path: "accounts.*.key",
        variable: "",
        shape: Shape::Secrets,
        default: "",
        since: "0.1.0",
        about: "Key of a further account, or of the platform that it is connected to; several while one replaces another. Required.",
    },
    Key {
        path: "accounts.*.webhook_secret",
        variable: "",
        shape: Shape::Secrets,
        default: "",
        since: "0.1.0",
        about: "Signing secret of the webhook endpoint that delivers to `/webhooks/stripe/ALIAS`; several while one is being rotated. Required unless `events.mode` is `poll`.",
    },
    Key {
        path: "accounts.*.stripe_account",
        variable: "",
        shape: Shape::Text,
        default: "",
        since: "0.1.0",
        about: "The connected account to act on, `acct_...`, sent as `Stripe-Account`; without it the account of the key.",
    },
    Key {
        path: "accounts.*.stripe_context",
        variable: "",
        shape: Shape::Text,
        default: "",
        since: "0.1.0",
        about: "The same for keys of an organisation, sent as `Stripe-Context`, such as `acct_...` or `acct_.../acct_...`.",
    },
    listen::GRPC,
    listen::WEBHOOK,
    listen::OPS,
    listen::CONNECTIONS_MAX,
    listen::CONNECTIONS_PER_ADDRESS_MAX,
    listen::CALLS_IN_FLIGHT_MAX,
    listen::LAME_DUCK_S,
    listen::GRACE_S,
    Key {
        path: "tls.certificate_file",
        variable: "TOLLGATE_TLS_CERTIFICATE_FILE",
        shape: Shape::File,
        default: "",
        since: "0.1.0",
        about: "The gateway's certificate and those that lead to its authority, in PEM. With it, gRPC is served over TLS only.",
    },
    Key {
        path: "tls.key_file",
        variable: "TOLLGATE_TLS_KEY_FILE",
        shape: Shape::File,
        default: "",
        since: "0.1.0",
        about: "The certificate's private key, in PEM.",
    },
    Key {
        path: "tls.client_ca_files",
        variable: "TOLLGATE_TLS_CLIENT_CA_FILES",
        shape: Shape::Texts,
        default: "",
        since: "0.1.0",
        about: "Authorities, in PEM, whose certificates callers may present.",
    },
    Key {
        path: "tls.client_crl_files",
        variable: "TOLLGATE_TLS_CLIENT_CRL_FILES",
        shape: Shape::Texts,
        default: "",
        since: "0.1.0",
        about: "Revocation lists, in PEM, one of each authority that issues to callers; with any set, a certificate of an authority without one is refused.",
    },
    Key {
        path: "tls.client_certificates",
        variable: "TOLLGATE_TLS_CLIENT_CERTIFICATES",
        shape: Shape::Choice(&["off", "optional", "required"]),
        default: "",
        since: "0.1.0",
        about: "Whether a caller of the gRPC port presents a certificate. Without the setting: `optional` where `tls.client_ca_files` is set, else `off`.",
    },
    Key {
        path: "tls.webhook",
        variable: "TOLLGATE_TLS_WEBHOOK",
        shape: Shape::Choice(&["false", "true"]),
        default: "false",
        since: "0.1.0",
        about: "Whether webhooks come over TLS with the same certificate. Stripe delivers to `https` only, so otherwise a proxy that speaks TLS has to stand in front.",
    },
    Key {
        path: "tls.ops",
        variable: "TOLLGATE_TLS_OPS",
        shape: Shape::Choice(&["false", "true"]),
        default: "false",
        since: "0.1.0",
        about: "Whether operators look over TLS with the same certificate.",
    },
    Key {
        path: "data",
        variable: "TOLLGATE_DATA",
        shape: Shape::Folder,
        default: "tollgate-data",
        since: "0.1.0",
        about: "Folder of the database. One gateway at a time; keep it on a local disk.",
    },
    Key {
        path: "callers.*.token",
        variable: "TOLLGATE_CALLER_TOKEN",
        shape: Shape::Secrets,
        default: "",
        since: "0.1.0",
        about: "Bearer token of the caller `*`, at least 16 characters; several while one is being rotated. The variable is that of the caller `default`.",
    },
    Key {
        path: "callers.*.namespace",
        variable: "",
        shape: Shape::Text,
        default: "",
        since: "0.1.0",
        about: "Namespace of the caller's order ids; the caller's name when not set. Callers that share one share orders.",
    },
    Key {
        path: "callers.*.groups",
        variable: "",
        shape: Shape::Texts,
        default: "",
        since: "0.1.0",
        about: "Groups of the caller, which rules may speak of.",
    },
    Key {
        path: "callers.*.certificates",
        variable: "",
        shape: Shape::Texts,
        default: "",
        since: "0.1.0",
        about: "Names in client certificates that are the caller's: `spiffe://...` or `dns:...`.",
    },
    Key {
        path: "callers.*.jwt",
        variable: "",
        shape: Shape::Texts,
        default: "",
        since: "0.1.0",
        about: "Subjects of JWTs that are the caller's: `ISSUER_NAME:SUBJECT`, where `issuers.ISSUER_NAME` is set.",
    },
    traffic::WEIGHT,
    Key {
        path: "policy.files",
        variable: "TOLLGATE_POLICY_FILES",
        shape: Shape::Texts,
        default: "",
        since: "0.1.0",
        about: "Files with policies, or folders of `.cedar` files: what each caller may do (docs/policy.md). Required once there are callers.",
    },
    Key {
        path: "issuers.*.issuer",
        variable: "",
        shape: Shape::Text,
        default: "",
        since: "0.1.0",
        about: "The `iss` claim of this issuer's JWTs. Required for an issuer.",
    },
    Key {
        path: "issuers.*.audience",
        variable: "",
        shape: Shape::Texts,
        default: "",
        since: "0.1.0",
        about: "Values of the `aud` claim that mean this gateway. Required for an issuer.",
    },
    Key {
        path: "issuers.*.jwks_url",
        variable: "",
        shape: Shape::Text,
        default: "",
        since: "0.1.0",
        about: "Where the issuer publishes its keys (RFC 7517). `https`, or plain `http` on the loopback address.",
    },
    Key {
        path: "issuers.*.jwks_file",
        variable: "",
        shape: Shape::File,
        default: "",
        since: "0.1.0",
        about: "File with the issuer's keys, read again when it changes. Instead of `jwks_url`.",
    },
    Key {
        path: "issuers.*.algorithms",
        variable: "",
        shape: Shape::Texts,
        default: "",
        since: "0.1.0",
        about: "Signature algorithms that the issuer may use; every asymmetric one when not set.",
    },
    Key {
        path: "feed.checkpoint_interval_s",
        variable: "TOLLGATE_FEED_CHECKPOINT_INTERVAL_S",
        shape: Shape::Seconds(1, 300),
        default: "15",
        since: "0.1.0",
        about: "Longest that a quiet event stream goes without a checkpoint.",
    },
    events::MODE,
    events::RETENTION_DAYS,
    events::RETENTION_BYTES,
    events::RETENTION_HARD_DAYS,
    events::SWEEP_EVERY,
    events::SWEEP_OVERLAP,
    events::SWEEP_TYPES,
    events::SWEEP_READS,
    events::THIN,
    events::MEMORY,
    Key {
        path: "audit.checkpoint_file",
        variable: "TOLLGATE_AUDIT_CHECKPOINT_FILE",
        shape: Shape::File,
        default: "",
        since: "0.1.0",
        about: "Where signed checkpoints are appended; `audit-checkpoints` in the data folder when not set. Better elsewhere.",
    },
    Key {
        path: "audit.signing_key",
        variable: "TOLLGATE_AUDIT_SIGNING_KEY",
        shape: Shape::Secret,
        default: "",
        since: "0.1.0",
        about: "Ed25519 private key of the audit log: 32 random bytes in base64. One of the data folder when not set.",
    },
    Key {
        path: "audit.retention_days",
        variable: "TOLLGATE_AUDIT_RETENTION_DAYS",
        shape: Shape::Days(1, 3_650),
        default: "396",
        since: "0.1.0",
        about: "How long audit records are kept; their hashes stay for good.",
    },
    Key {
        path: "guards.over_refund",
        variable: "TOLLGATE_GUARDS_OVER_REFUND",
        shape: Shape::Choice(&["off", "advise", "refuse"]),
        default: "advise",
        since: "0.1.0",
        about: "What follows when, by the event log, a refund would give back more than was paid: nothing, a word in the answer, or a refusal.",
    },
    Key {
        path: "guards.open_dispute",
        variable: "TOLLGATE_GUARDS_OPEN_DISPUTE",
        shape: Shape::Choice(&["off", "advise", "refuse"]),
        default: "advise",
        since: "0.1.0",
        about: "What follows when, by the event log, the payment to refund is disputed.",
    },
    Key {
        path: "budgets.*.callers",
        variable: "",
        shape: Shape::Texts,
        default: "",
        since: "0.1.0",
        about: "Callers whom the budget `*` concerns; each has the whole amount for itself. Everybody where neither callers nor groups are named.",
    },
    Key {
        path: "budgets.*.groups",
        variable: "",
        shape: Shape::Texts,
        default: "",
        since: "0.1.0",
        about: "Groups whose members it concerns likewise.",
    },
    Key {
        path: "budgets.*.rpcs",
        variable: "",
        shape: Shape::Texts,
        default: "",
        since: "0.1.0",
        about: "RPCs that it concerns, such as `RefundService.CreateRefund`; all that move money when not set.",
    },
    Key {
        path: "budgets.*.currency",
        variable: "",
        shape: Shape::Text,
        default: "",
        since: "0.1.0",
        about: "Its currency, such as `eur`. A caller who has budgets moves money in their currencies alone.",
    },
    Key {
        path: "budgets.*.window",
        variable: "",
        shape: Shape::Choice(&["rolling_day", "calendar_month", "order"]),
        default: "",
        since: "0.1.0",
        about: "What it counts over: the last 24 hours, the month by UTC, or one order for ever.",
    },
    Key {
        path: "budgets.*.amount",
        variable: "",
        shape: Shape::Amount,
        default: "",
        since: "0.1.0",
        about: "The most, in the currency's smallest unit: `10000` is 100.00 eur.",
    },
    Key {
        path: "telemetry.otlp_endpoint",
        variable: "TOLLGATE_OTLP_ENDPOINT",
        shape: Shape::Url,
        default: "",
        since: "0.1.0",
        about: "OTLP receiver for traces and metrics over gRPC, `http://host:port`; without it none are exported.",
    },
    Key {
        path: "telemetry.log",
        variable: "TOLLGATE_LOG",
        shape: Shape::Text,
        default: "info,opentelemetry=warn",
        since: "0.1.0",
        about: "Which log lines are written, such as `info` or `tollgate=debug,warn`.",
    },
    Key {
        path: "telemetry.log_format",
        variable: "TOLLGATE_LOG_FORMAT",
        shape: Shape::Choice(&["auto", "json", "text"]),
        default: "auto",
        since: "0.1.0",
        about: "Form of log lines; `auto` is text on a terminal and JSON elsewhere.",
    },
];

/// The caller that the environment variable of a `*` key speaks of.
pub(super) const DEFAULT_CALLER: &str = "default";

impl Key {
    /// The path that the environment variable sets.
    pub(super) fn variable_path(&self) -> String {
        self.path.replace('*', DEFAULT_CALLER)
    }

    /// Whether `path` is this key; its `*` matches one part of any name.
    pub(super) fn matches(&self, path: &str) -> bool {
        let (mut own, mut given) = (self.path.split('.'), path.split('.'));
        loop {
            match (own.next(), given.next()) {
                (None, None) => return true,
                (Some(own), Some(given)) if own == given || (own == "*" && !given.is_empty()) => {}
                _ => return false,
            }
        }
    }
}

/// The key that `path` belongs to.
pub(super) fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.matches(path))
}
