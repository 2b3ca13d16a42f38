//! A gateway process with callers of every kind, and the sandbox behind it. It is asked; it judges nothing.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use prost_reflect::Value;
use tempfile::TempDir;
use tollgate::domain::clock::SystemClock;
use tollgate::proto::v1::admin_service_client::AdminServiceClient;
use tollgate::proto::v1::token_service_client::TokenServiceClient;
use tollgate::proto::v1::{
    ApiTokenState, CreateTokenRequest, FreezeWritesRequest, ListTokensRequest, RevokeTokenRequest,
    RotateTokenRequest, UnfreezeWritesRequest,
};
use tollgate::sandbox::{Fault, Handle, WebhookTarget};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;

use super::call::{Came, call};
use super::certificates::{Authorities, ORDERS, Presents};
use super::contract::Rpc;
use super::credentials::{AUDIENCE, ISSUER, Issuer, Purse, SUBJECT, Tokens, bearer};
use crate::crash::gateway::Gateway;
use crate::crash::random::Random;
use crate::crash::records::{self, Audit, Book};
use crate::crash::{deliver_all, stock};
use crate::rig::{self, EUROPE, EUROPE_KEY, SECRET, TOKEN, Token, until};

/// Callers by name and token: one of whom no rule speaks, one who may read, one who may do everything but is forbidden to
/// change anything, one with a cap, one who may change its own orders only, and one whose changes are frozen.
pub(super) const NOTHING: (&str, &str) = ("nothing", "token-of-whom-no-rule-speaks");
pub(super) const READER: (&str, &str) = ("reader", "token-of-the-reader");
pub(super) const INTERN: (&str, &str) = ("intern", "token-of-the-intern");
pub(super) const CAPPED: (&str, &str) = ("capped", "token-of-the-capped-one");
pub(super) const TENANT: (&str, &str) = ("tenant", "token-of-the-tenant");
pub(super) const FROZEN: (&str, &str) = ("frozen", "token-of-the-frozen-one");
/// One who may do everything at one account.
pub(super) const DOMESTIC: (&str, &str) = ("domestic", "token-of-the-domestic-one");
/// One of another namespace, who may do everything at the other account.
pub(super) const NEIGHBOUR: (&str, &str) = ("neighbour", "token-of-the-neighbour");
/// One who may do everything and has no money left.
pub(super) const SPENDER: (&str, &str) = ("spender", "token-of-the-spender");
/// One who may do everything, and is frozen in the middle of it.
pub(super) const MOVER: (&str, &str) = ("mover", "token-of-the-mover");
/// The most that the one with a cap may move, in the smallest unit.
pub(super) const CAP: i64 = 500;

/// What the callers may do.
const POLICY: &str = r#"
@id("the-prover-does-everything")
permit (principal == Caller::"prover", action, resource);

@id("members-do-everything")
permit (principal in Group::"members", action, resource);

@id("readers-read")
permit (principal in Group::"readers", action in Action::"read", resource);

@id("interns-only-read")
forbid (principal == Caller::"intern", action in [Action::"change", Action::"own", Action::"admin"], resource);

@id("capped")
forbid (
  principal == Caller::"capped",
  action in [Action::"RefundService.CreateRefund", Action::"CustomerService.CreateCustomerBalanceTransaction"],
  resource
) unless { context has amount && context.amount <= 500 };

@id("domestic-stays-at-home")
permit (principal == Caller::"domestic", action, resource == Account::"default");

@id("the-neighbour-stays-abroad")
permit (principal == Caller::"neighbour", action, resource == Account::"eu");

@id("tenants-own-orders")
permit (principal == Caller::"tenant", action in Action::"change", resource)
when { context.order_id like "tenant-*" };
"#;

/// What the right callers read to show that they are let in.
const HARMLESS: &str = "/tollgate.v1.BalanceService/GetBalance";

/// Everything that is attacked.
pub(super) struct House {
    sandbox: Handle,
    gateway: Gateway,
    authorities: Authorities,
    pub(super) purse: Purse,
    _folder: TempDir,
}

/// What is left when the gateway is gone.
pub(super) struct Left {
    pub(super) audit: Vec<Audit>,
    /// How it ended and what it logged, if it did not end well.
    pub(super) trouble: Option<String>,
}

impl House {
    /// Starts everything; `planted` is a fault that the binary makes.
    pub(super) async fn start(binary: PathBuf, planted: Option<&'static str>, rpcs: &[Rpc]) -> Self {
        let folder = TempDir::new().unwrap();
        let sandbox = rig::sandbox(Arc::new(SystemClock::new())).await;
        let (issuer, authorities) = (Issuer::new(), Authorities::new());
        let mut gateway = Gateway::new(binary, planted, folder.path(), sandbox.address());
        let mut config = OpenOptions::new().append(true).open(folder.path().join("tollgate.toml")).unwrap();
        std::fs::write(folder.path().join("policy.cedar"), POLICY).unwrap();
        config.write_all(settings(folder.path(), &issuer, &authorities).as_bytes()).unwrap();
        gateway.spawn();
        let channel = until(async || authorities.connect(gateway.grpc, Presents::Nothing).await.ok()).await;
        let tokens = tokens(InterceptedService::new(channel, Token(TOKEN))).await;
        let purse = Purse { issuer, tokens, payment: String::new(), pages: BTreeMap::new() };
        let mut house = Self { sandbox, gateway, authorities, purse, _folder: folder };
        house.furnish(rpcs).await;
        house
    }

    /// Fills the house: something to list, and a caller whose changes are frozen.
    async fn furnish(&mut self, rpcs: &[Rpc]) {
        let control = self.sandbox.control();
        let url = format!("http://{}/webhooks/stripe", self.gateway.webhook);
        control.set_webhooks(vec![WebhookTarget { url, secrets: vec![SECRET.to_owned()] }]);
        self.purse.payment.clone_from(&stock(&control).payments[0]);
        deliver_all(&control).await;
        self.freeze(FROZEN.0).await;
        let channel = self.channel().await;
        for rpc in rpcs.iter().filter(|rpc| rpc.takes("page_token") && rpc.takes("page_size")) {
            // Twice the same choices: a place in a list is bound to its filters.
            let (one, choices) = (("page_size", Value::I32(1)), || Random::new(1));
            let request = rpc.request(&mut choices(), std::slice::from_ref(&one));
            let Came::Allowed(page) = call(&channel, &rpc.path(), &bearer(TOKEN), request).await else {
                continue;
            };
            if let Some(token) = rpc.answered(&page, "next_page_token") {
                let next = rpc.request(&mut choices(), &[one, ("page_token", Value::String(token))]);
                self.purse.pages.insert(rpc.name(), next);
            }
        }
        assert!(self.purse.pages.len() > 4, "few lists go on: {:?}", self.purse.pages.keys());
    }

    /// A connection of its own that presents no certificate.
    async fn channel(&self) -> Channel {
        self.connect(Presents::Nothing).await.unwrap()
    }

    /// A connection of its own, which presents something.
    pub(super) async fn connect(&self, presents: Presents) -> Result<Channel, tonic::transport::Error> {
        self.authorities.connect(self.gateway.grpc, presents).await
    }

    async fn operator(&self) -> AdminServiceClient<InterceptedService<Channel, Token>> {
        AdminServiceClient::new(InterceptedService::new(self.channel().await, Token(TOKEN)))
    }

    /// Freezes all changes of a caller; the freeze's name.
    async fn freeze(&self, caller: &str) -> String {
        let (caller, reason) = (caller.to_owned(), "for the proof".to_owned());
        let freeze = FreezeWritesRequest { caller, reason, ..Default::default() };
        let answer = self.operator().await.freeze_writes(freeze).await.unwrap();
        answer.into_inner().freeze.unwrap().id
    }

    /// What a change is answered that is under way, and was not let through yet, when its caller is frozen.
    pub(super) async fn frozen_under_way(&self, refund: &Rpc, random: &mut Random) -> Came {
        let control = self.sandbox.control();
        control.add_fault(Fault::parse("status:POST:/v1/refunds:status=429,times=1000").unwrap());
        let (before, channel, path) = (control.received(), self.channel().await, refund.path());
        let (shown, request) = (bearer(MOVER.1), refund.request(random, &[]));
        let sending = tokio::spawn(async move { call(&channel, &path, &shown, request).await });
        until(async || (control.received() > before).then_some(())).await;
        let id = self.freeze(MOVER.0).await;
        let came = sending.await.unwrap();
        control.clear_faults();
        let lift = UnfreezeWritesRequest { id, reason: "for the proof".to_owned() };
        self.operator().await.unfreeze_writes(lift).await.unwrap();
        came
    }

    /// How many changes Stripe has made.
    pub(super) fn effects(&self) -> usize {
        let controls = [self.sandbox.control(), self.sandbox.control_of(EUROPE).unwrap()];
        controls.iter().map(|control| Book::read(control).effects.len()).sum()
    }

    /// What those who may call are answered: without them, a gateway that refuses everybody would look well.
    pub(super) async fn right_callers(&self, random: &mut Random) -> Vec<(&'static str, Came)> {
        let good = || bearer(&self.purse.tokens.good);
        let right = [
            ("a configured token", Presents::Nothing, bearer(TOKEN)),
            ("a JWT", Presents::Nothing, bearer(&self.purse.issuer.right(random))),
            ("an API token", Presents::Nothing, good()),
            ("a certificate", Presents::Orders, Vec::new()),
            ("a certificate with its caller's token", Presents::Orders, good()),
        ];
        let mut came = Vec::new();
        for (name, presents, shown) in right {
            let channel = self.connect(presents).await.unwrap();
            came.push((name, call(&channel, HARMLESS, &shown, vec![Vec::new()]).await));
        }
        came
    }

    /// What those come to whose certificate the handshake has to refuse, although they show a good token.
    pub(super) async fn refused_connections(&self) -> Vec<(Presents, Came)> {
        let mut came = Vec::new();
        for presents in Presents::REFUSED {
            // The client may learn of the refusal with its first call only (RFC 8446, appendix E.1.2).
            if let Ok(channel) = self.connect(presents).await {
                let shown = bearer(&self.purse.tokens.good);
                came.push((presents, call(&channel, HARMLESS, &shown, vec![Vec::new()]).await));
            }
        }
        came
    }

    /// Ends the gateway in peace.
    pub(super) async fn end(mut self) -> Left {
        let ended = self.gateway.terminate().await;
        let log = self.gateway.log();
        let well = ended.success() && !log.contains("panicked");
        let (audit, _) = records::stored(&self.gateway.data()).await;
        self.sandbox.stop().await;
        Left { audit, trouble: (!well).then(|| format!("{ended}: {log}")) }
    }
}

/// Makes API tokens of the caller `orders`, and ends most of them.
async fn tokens(operator: InterceptedService<Channel, Token>) -> Tokens {
    let mut tokens = TokenServiceClient::new(operator);
    let mut made = Vec::new();
    for lifetime_s in [0, 0, 1, 0] {
        let note = "for the proof".to_owned();
        let request = CreateTokenRequest { caller: "orders".to_owned(), lifetime_s, note };
        let answer = tokens.create_token(request).await.unwrap().into_inner();
        made.push((answer.token, answer.api_token.unwrap().id));
    }
    let [(good, _), (revoked, revoked_id), (expired, expired_id), (replaced, replaced_id)] =
        <[_; 4]>::try_from(made).unwrap();
    let revoke = RevokeTokenRequest { id: revoked_id, reason: "for the proof".to_owned() };
    tokens.revoke_token(revoke).await.unwrap();
    let rotate = RotateTokenRequest { id: replaced_id, overlap_s: 0, lifetime_s: 0 };
    tokens.rotate_token(rotate).await.unwrap();
    until(async || {
        let request = ListTokensRequest { ended: true, ..Default::default() };
        let listed = tokens.list_tokens(request).await.unwrap().into_inner().tokens;
        let expired = listed.iter().find(|token| token.id == expired_id)?;
        (expired.state() == ApiTokenState::Expired).then_some(())
    })
    .await;
    Tokens { good, revoked, expired, replaced }
}

/// The settings of callers, issuer and certificates.
fn settings(folder: &Path, issuer: &Issuer, authorities: &Authorities) -> String {
    let key_set = folder.join("jwks.json");
    std::fs::write(&key_set, issuer.key_set()).unwrap();
    let named_caller = |((name, token), group): ((&str, &str), &str)| {
        format!("[callers.{name}]\ntoken = \"{token}\"\ngroups = [\"{group}\"]\n")
    };
    let named = [
        (NOTHING, "others"),
        (READER, "readers"),
        (INTERN, "members"),
        (CAPPED, "members"),
        (TENANT, "tenants"),
        (FROZEN, "members"),
        (MOVER, "members"),
        (SPENDER, "members"),
        (DOMESTIC, "others"),
    ];
    format!(
        r#"
{}
[callers.{}]
token = "{}"
namespace = "elsewhere"
[callers.orders]
jwt = ["idp:{SUBJECT}"]
certificates = ["{ORDERS}"]
groups = ["members"]
[accounts.eu]
key = "{EUROPE_KEY}"
webhook_secret = "whsec_of_the_other_account"
[budgets.pot]
callers = ["spender"]
currency = "usd"
window = "rolling_day"
amount = 1
[issuers.idp]
issuer = "{ISSUER}"
audience = "{AUDIENCE}"
jwks_file = "{}"
{}"#,
        named.map(named_caller).concat(),
        NEIGHBOUR.0,
        NEIGHBOUR.1,
        key_set.display(),
        authorities.settings(folder)
    )
}
