//! What is refused, with which words, and that all of it is said at once.

mod accounts;

use secrecy::ExposeSecret as _;

use crate::config::{ClientCertificates, Config, Environment, Faults, Flags, load};
use crate::domain::limits::{CALLS_IN_FLIGHT_MAX, CONNECTIONS_MAX, CONNECTIONS_PER_ADDRESS_MAX};

const KEY: &str = "sk_test_4eC39HqLyjWDarjtT1zdp7dc";

const POLICY: &str = "TOLLGATE_POLICY_FILES";

struct Setup {
    folder: tempfile::TempDir,
    flags: Flags,
    variables: Vec<(String, String)>,
}

impl Setup {
    /// The least that a gateway needs.
    fn sound() -> Self {
        let setup = Self { folder: tempfile::tempdir().unwrap(), flags: Flags::default(), variables: vec![] };
        setup
            .set("TOLLGATE_STRIPE_KEY", KEY)
            .set("TOLLGATE_WEBHOOK_SECRET", "whsec_one")
            .set(POLICY, "policy.cedar")
    }

    fn empty() -> Self {
        Self { variables: vec![], ..Self::sound() }
    }

    fn set(mut self, name: &str, value: &str) -> Self {
        self.variables.retain(|(known, _)| known != name);
        self.variables.push((name.into(), value.into()));
        self
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    fn toml(mut self, text: &str) -> Self {
        self.flags.config = Some(self.file("tollgate.toml", text).into());
        self
    }

    fn flag(mut self, key: &'static str, value: &str) -> Self {
        self.flags.values.push((key, value.into()));
        self
    }

    fn load(&self) -> Result<Config, Faults> {
        load(&self.flags, &self.variables.iter().cloned().collect::<Environment>())
    }

    fn faults(&self) -> Vec<String> {
        self.load().unwrap_err().0.iter().map(ToString::to_string).collect()
    }
}

#[test]
fn a_key_and_a_webhook_secret_are_enough() {
    let config = Setup::sound().load().unwrap();
    assert_eq!(config.stripe.api_base, "https://api.stripe.com");
    assert_eq!(config.stripe.attempt_timeout.as_secs(), 80);
    assert_eq!(config.listen.grpc.to_string(), "127.0.0.1:7400");
    assert_eq!(config.listen.connections_max, CONNECTIONS_MAX);
    assert_eq!(config.listen.connections_per_address_max, CONNECTIONS_PER_ADDRESS_MAX);
    assert_eq!(config.listen.calls_in_flight_max, CALLS_IN_FLIGHT_MAX);
    assert!(config.callers.is_empty());
}

#[test]
fn the_later_layer_wins() {
    let toml = "data = \"file\"\n[listen]\ngrpc = \"127.0.0.1:1\"\nwebhook = \"127.0.0.1:2\"\n";
    let setup =
        Setup::sound().toml(toml).set("TOLLGATE_LISTEN_GRPC", "127.0.0.1:3").set("TOLLGATE_DATA", "variable");
    let config = setup.flag("data", "flag").load().unwrap();
    assert_eq!(config.data.to_str(), Some("flag"));
    assert_eq!(config.listen.grpc.port(), 3);
    assert_eq!(config.listen.webhook.port(), 2);
    assert_eq!(config.listen.ops.port(), 7402);
}

#[test]
fn every_fault_is_said_at_once_with_its_place_and_a_near_miss() {
    let setup = Setup::empty()
        .toml("dta = \"x\"\n[listen]\ngrcp = \"127.0.0.1:1\"\nops = \"nowhere\"\n[stripe]\nattempt_timeout_s = 0\n")
        .set("TOLLGATE_STRIPE_KEYS", "x")
        .set("TOLLGATE_WEBHOOK_SECRET", "")
        .set("TOLLGATE_STRIPE_API_BASE", "http://example.com");
    let file = setup.flags.config.clone().unwrap().display().to_string();
    let mut faults = setup.faults();
    faults.sort();
    let mut expected = vec![
        format!("`dta`: there is no such setting (from `{file}`); did you mean `data`?"),
        format!("`listen.grcp`: there is no such setting (from `{file}`); did you mean `listen.grpc`?"),
        format!("`listen.ops`: `nowhere` is not an address like `127.0.0.1:7400` (from `{file}`)"),
        format!("`stripe.attempt_timeout_s`: `0` is not between 1 and 600 seconds (from `{file}`)"),
        "`TOLLGATE_STRIPE_KEYS`: there is no such setting (from the environment); did you mean `TOLLGATE_STRIPE_KEY`?"
            .into(),
        "`webhook.secret`: holds an empty secret, with which anybody could sign events \
         (from the variable `TOLLGATE_WEBHOOK_SECRET`)"
            .into(),
        "`stripe.api_base`: `http://example.com` would send the key in the clear; plain http is for the loopback \
         address only (from the variable `TOLLGATE_STRIPE_API_BASE`)"
            .into(),
        "`stripe.key`: is required; set it in the file or as `TOLLGATE_STRIPE_KEY`".into(),
    ];
    expected.sort();
    assert_eq!(faults, expected);
}

#[test]
fn a_value_and_a_file_for_one_secret_are_too_much() {
    let setup = Setup::sound();
    let path = setup.file("key", KEY);
    let faults = setup.set("TOLLGATE_STRIPE_KEY_FILE", &path).faults();
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert!(faults[0].starts_with("`stripe.key`: is set twice"), "{faults:?}");
}

#[test]
fn a_secret_has_one_source_wherever_it_stands() {
    let setup = Setup::sound().toml(&format!("[stripe]\nkey = \"{KEY}\"\n"));
    let faults = setup.faults();
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert!(
        faults[0].contains("is set twice, by `") && faults[0].contains("`TOLLGATE_STRIPE_KEY`"),
        "{faults:?}"
    );
}

#[test]
fn a_systemd_credential_is_a_source_like_the_others_and_named_like_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let credential = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    credential("stripe.key", &format!("{KEY}\n"));
    credential("webhook.secret", "whsec_one\nwhsec_two\n");
    credential("database-password", "of some other program");
    let setup = || Setup::empty().set("CREDENTIALS_DIRECTORY", folder.path().to_str().unwrap());
    let config = setup().load().unwrap();
    assert_eq!((config.stripe.keys[0].expose_secret(), config.webhook.secrets.len()), (KEY, 2));
    let faults = setup().set("TOLLGATE_STRIPE_KEY", KEY).faults();
    assert!(faults.len() == 1 && faults[0].starts_with("`stripe.key`: is set twice"), "{faults:?}");
    credential("webhook.secrets", "whsec_three");
    let faults = setup().faults();
    assert!(faults.len() == 1 && faults[0].ends_with("did you mean `webhook.secret`?"), "{faults:?}");
}

#[test]
fn secrets_come_from_files_without_the_line_end() {
    let setup = Setup::empty().set(POLICY, "policy.cedar");
    let (key, secrets) =
        (setup.file("key", &format!("{KEY}\n")), setup.file("secrets", "whsec_one, whsec_two\n"));
    let toml = format!("[stripe]\nkey_file = \"{key}\"\n[callers.shop]\ntoken = \"0123456789abcdef\"\n");
    let config = setup.toml(&toml).set("TOLLGATE_WEBHOOK_SECRET_FILE", &secrets).load().unwrap();
    assert_eq!(config.stripe.keys[0].expose_secret(), KEY);
    let secrets: Vec<_> = config.webhook.secrets.iter().map(|secret| secret.expose_secret()).collect();
    assert_eq!(secrets, ["whsec_one", "whsec_two"]);
    assert_eq!((config.callers[0].name.as_str(), config.callers[0].namespace.as_str()), ("shop", "shop"));
}

#[test]
fn a_file_that_cannot_be_read_is_a_fault() {
    let faults = Setup::sound().set("TOLLGATE_CALLER_TOKEN_FILE", "/nowhere/token").faults();
    assert!(
        faults[0].starts_with("`callers.default.token`: cannot read the file `/nowhere/token`"),
        "{faults:?}"
    );
}

#[test]
fn keys_that_this_version_must_not_use_are_refused() {
    for (key, why) in [
        ("sk_live_x1", "is a live key"),
        ("rk_live_x1", "is a live key"),
        ("pk_test_x1", "is a publishable key"),
        ("sk_test_", "is not a Stripe key"),
        ("", "is not a Stripe key"),
        ("sk_test_a b", "holds a character other than printable ASCII"),
    ] {
        let faults = Setup::sound().set("TOLLGATE_STRIPE_KEY", key).faults();
        assert!(faults[0].starts_with(&format!("`stripe.key`: {why}")), "{key}: {faults:?}");
    }
    assert!(Setup::sound().set("TOLLGATE_STRIPE_KEY", "rk_test_x1").load().is_ok());
    assert!(Setup::sound().set("TOLLGATE_MODE", "live").load().is_err());
}

#[test]
fn beyond_loopback_tls_and_a_caller_are_needed() {
    let open = || Setup::sound().set("TOLLGATE_LISTEN_GRPC", "0.0.0.0:7400");
    let tls = |setup: Setup| {
        setup.set("TOLLGATE_TLS_CERTIFICATE_FILE", "cert.pem").set("TOLLGATE_TLS_KEY_FILE", "key.pem")
    };
    let caller = |setup: Setup| setup.set("TOLLGATE_CALLER_TOKEN", "0123456789abcdef");
    let said = |setup: Setup| setup.faults().join("\n");
    let neither = said(open());
    assert!(neither.contains("there is no TLS: set `tls.certificate_file`"), "{neither}");
    assert!(neither.contains("no caller is known: set `TOLLGATE_CALLER_TOKEN`"), "{neither}");
    let no_tls = said(caller(open()));
    assert!(no_tls.contains("there is no TLS") && !no_tls.contains("no caller"), "{no_tls}");
    let no_caller = said(tls(open()));
    assert!(no_caller.contains("no caller is known") && !no_caller.contains("no TLS"), "{no_caller}");
    assert!(tls(caller(open())).load().is_ok());
    let faults = tls(open()).set("TOLLGATE_CALLER_TOKEN", "0123456789abcde").faults();
    assert!(faults[0].starts_with("`callers.default.token`: is shorter than 16 characters"), "{faults:?}");
}

#[test]
fn half_of_tls_is_a_fault() {
    let begins = |setup: Setup, start: &str| {
        let faults = setup.faults();
        assert!(faults.len() == 1 && faults[0].starts_with(start), "{faults:?}");
    };
    let certificate = || Setup::sound().set("TOLLGATE_TLS_CERTIFICATE_FILE", "cert.pem");
    begins(certificate(), "`tls.key_file`: is required");
    begins(Setup::sound().set("TOLLGATE_TLS_KEY_FILE", "key.pem"), "`tls.certificate_file`: is required");
    begins(Setup::sound().set("TOLLGATE_TLS_WEBHOOK", "true"), "`tls.webhook`: needs `tls.certificate_file`");
    let whole = || certificate().set("TOLLGATE_TLS_KEY_FILE", "key.pem");
    begins(
        whole().set("TOLLGATE_TLS_CLIENT_CERTIFICATES", "required"),
        "`tls.client_certificates`: needs `tls.client_ca_files`",
    );
    let asked =
        whole().toml("[tls]\nclient_ca_files = [\"a.pem\", \"b.pem\"]\n").load().unwrap().tls.unwrap();
    assert_eq!((asked.client_ca_files.len(), asked.client_certificates), (2, ClientCertificates::Optional));
    assert_eq!(whole().load().unwrap().tls.unwrap().client_certificates, ClientCertificates::Off);
}

#[test]
fn callers_need_policies() {
    let setup = Setup::sound().set("TOLLGATE_CALLER_TOKEN", "0123456789abcdef");
    let without = Setup {
        variables: setup.variables.iter().filter(|(name, _)| name != POLICY).cloned().collect(),
        ..setup
    };
    let faults = without.faults();
    assert!(faults[0].starts_with("`policy.files`: is required once there are callers"), "{faults:?}");
    assert!(faults[0].contains("`tollgate policy init policy.cedar`"), "{faults:?}");
    let several = without.set(POLICY, "a.cedar, more").load().unwrap();
    assert_eq!(several.policy_files, ["a.cedar", "more"].map(std::path::PathBuf::from));
}

#[test]
fn one_token_cannot_be_two_callers() {
    let toml = "[callers.a]\ntoken = \"0123456789abcdef\"\n[callers.b]\ntoken = \"0123456789abcdef\"\n";
    assert_eq!(
        Setup::sound().toml(toml).faults(),
        ["`callers.b.token`: holds a credential that is of `a` too"]
    );
}

const ISSUER: &str =
    "[issuers.corp]\nissuer = \"https://idp\"\naudience = \"tollgate\"\njwks_url = \"https://idp/keys\"\n";

#[test]
fn a_caller_can_be_known_in_three_ways() {
    let toml = format!(
        "[callers.a]\nnamespace = \"shop\"\ngroups = [\"money\", \"all\"]\ntoken = \"0123456789abcdef,another-token-of-a\"\n\
         certificates = [\"spiffe://example.org/ns/a\", \"dns:A.example.org\"]\njwt = \"corp:system:a\"\n{ISSUER}"
    );
    let config = Setup::sound().toml(&toml).load().unwrap();
    let caller = &config.callers[0];
    assert_eq!((caller.tokens.len(), caller.groups.len(), caller.namespace.as_str()), (2, 2, "shop"));
    let names: Vec<_> = caller.certificates.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["spiffe://example.org/ns/a", "dns:a.example.org"]);
    assert_eq!(
        (caller.subjects[0].issuer.as_str(), caller.subjects[0].subject.as_str()),
        ("corp", "system:a")
    );
    assert_eq!(config.issuers[0].audiences, ["tollgate"]);
    assert_eq!(config.issuers[0].algorithms.len(), 9);
}

#[test]
fn what_is_no_credential_is_a_fault_with_its_reason() {
    for (toml, what) in [
        ("[callers.a]\n", "is an empty table"),
        ("[callers.a]\ncertificates = \"orders\"", "is neither a SPIFFE id"),
        ("[callers.a]\ncertificates = \"spiffe://example.org\"", "is neither a SPIFFE id"),
        ("[callers.a]\ncertificates = \"spiffe://example.org/a/../b\"", "is neither a SPIFFE id"),
        ("[callers.a]\ncertificates = \"spiffe://Example.org/a\"", "is neither a SPIFFE id"),
        ("[callers.a]\ncertificates = \"dns:*.example.org\"", "is neither a SPIFFE id"),
        ("[callers.a]\njwt = \"a\"", "is not `ISSUER_NAME:SUBJECT`"),
        ("[callers.a]\njwt = \"corp:a\"", "`issuers.corp` is not set"),
        ("[callers.a]\ntoken = [\"0123456789abcdef\", \"0123456789abcdef\"]", "is there twice"),
        ("[issuers.a]\nissuer = \"i\"\naudience = \"t\"", "needs either `jwks_file` or `jwks_url`"),
        ("[issuers.a]\nissuer = \"i\"\njwks_file = \"f\"", "is required"),
        (
            "[issuers.a]\nissuer = \"i\"\naudience = \"t\"\njwks_url = \"http://idp/keys\"",
            "could be forged on its way",
        ),
        (
            "[issuers.a]\nissuer = \"i\"\naudience = \"t\"\njwks_file = \"f\"\nalgorithms = \"HS256\"",
            "`HS256` is none of",
        ),
    ] {
        let faults = Setup::sound().toml(toml).faults();
        assert!(faults.iter().any(|fault| fault.contains(what)), "{toml}: {faults:?}");
    }
    let local = "[issuers.a]\nissuer = \"i\"\naudience = \"t\"\njwks_url = \"http://127.0.0.1:9/keys\"";
    assert!(Setup::sound().toml(local).load().is_ok());
}

#[test]
fn one_name_in_a_certificate_and_one_subject_mean_one_caller() {
    let toml = format!(
        "[callers.a]\ncertificates = \"dns:a\"\njwt = \"corp:s\"\n[callers.b]\ncertificates = \"dns:A\"\njwt = \"corp:s\"\n{ISSUER}"
    );
    let faults = Setup::sound().toml(&toml).faults();
    for key in ["certificates", "jwt"] {
        let fault = format!("`callers.b.{key}`: holds a credential that is of `a` too");
        assert!(faults.contains(&fault), "{faults:?}");
    }
    let issuers = format!("{ISSUER}{}", ISSUER.replace("corp", "other"));
    assert!(Setup::sound().toml(&issuers).faults()[0].ends_with("is that of `corp` too"));
}

#[test]
fn plain_http_reaches_the_sandbox_only() {
    for (base, fine) in [
        ("http://127.0.0.1:7403", true),
        ("http://localhost:7403/", true),
        ("http://[::1]:7403", true),
        ("https://stripe.example", true),
        ("http://127.0.0.1.example", false),
        ("http://10.0.0.1", false),
        ("https://user:pass@example.com", false),
        ("https://example.com/v1", false),
        ("ftp://127.0.0.1", false),
        ("127.0.0.1:7403", false),
    ] {
        assert_eq!(Setup::sound().set("TOLLGATE_STRIPE_API_BASE", base).load().is_ok(), fine, "{base}");
    }
}

#[test]
fn a_list_that_is_the_only_way_in_is_read_with_some_overlap() {
    let setup = Setup::sound().set("TOLLGATE_EVENTS_SWEEP_OVERLAP_S", "59");
    assert!(setup.load().is_ok(), "webhooks bring what the list shows late");
    let setup = setup.set("TOLLGATE_EVENTS_MODE", "poll");
    assert!(setup.faults()[0].contains("`events.sweep_overlap_s`"), "{:?}", setup.faults());
    assert!(setup.set("TOLLGATE_EVENTS_SWEEP_OVERLAP_S", "60").load().is_ok());
}

#[test]
fn reads_of_a_day_that_are_too_few_to_get_on_with_are_refused() {
    let reads = |reads: &str, types: usize| {
        let types: Vec<String> = (0..types).map(|n| format!("a.{n}")).collect();
        Setup::sound()
            .set("TOLLGATE_EVENTS_SWEEP_READS_PER_DAY", reads)
            .set("TOLLGATE_EVENTS_SWEEP_TYPES", &types.join(","))
    };
    for (few, enough, types) in [("19", "20", 0), ("19", "20", 20), ("39", "40", 21)] {
        let faults = reads(few, types).faults();
        assert!(faults[0].contains("`events.sweep_reads_per_day`"), "{faults:?}");
        assert!(reads(enough, types).load().is_ok());
    }
    assert!(reads("0", 21).load().is_ok());
}

#[test]
fn variables_that_kubernetes_adds_do_no_harm() {
    let setup =
        Setup::sound().set("TOLLGATE_SERVICE_HOST", "10.0.0.1").set("TOLLGATE_PORT", "tcp://10.0.0.1:7400");
    assert!(setup.set("TOLLGATE_PORT_7400_TCP_ADDR", "10.0.0.1").load().is_ok());
}

#[test]
fn neither_settings_nor_faults_show_a_secret() {
    let setup = Setup::sound().set("TOLLGATE_CALLER_TOKEN", "0123456789abcdef");
    let shown = format!("{:?}", setup.load().unwrap());
    let broken =
        Setup::empty().toml("[stripe]\nkey = \"sk_test_hidden\" oops\n").load().unwrap_err().to_string();
    for secret in [KEY, "whsec_one", "0123456789abcdef", "sk_test_hidden"] {
        assert!(!shown.contains(secret) && !broken.contains(secret), "{shown} {broken}");
    }
    assert!(broken.contains("is not TOML at line 2"), "{broken}");
}
