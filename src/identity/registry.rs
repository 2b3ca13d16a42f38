//! Everybody who may call, and the one way from what a call shows to its caller. It takes new settings and tokens at any
//! time and tells who listens; it stores nothing.

mod cut;

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use secrecy::ExposeSecret as _;
use sha2::{Digest as _, Sha256};
use tokio::sync::{OwnedMutexGuard, watch};

use super::jwks::Keys;
use super::jwt::Token;
use super::{Settings, Stranger, TokenRecord, token};
use crate::config::identity::Algorithm;
use crate::config::{CallerConfig, IssuerConfig, Roll};
use crate::domain::caller::{Caller, Credential, PeerName, PeerNames};
use crate::domain::clock::{Clock, UnixMillis};
use crate::domain::drain::Drain;
use crate::domain::limits::{IDENTITY_TICK_MS, JWT_LEEWAY_S};
use crate::domain::planted;
use crate::domain::secret::Secret;

/// What a call shows of itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Presented<'a> {
    /// The header `authorization`; empty where it cannot be read or there are several.
    pub authorization: Option<&'a str>,
    /// The names in the client certificate that the handshake verified.
    pub certificate: Option<&'a PeerNames>,
}

/// Everybody who may call. Clones share everything.
#[derive(Clone, Debug)]
pub struct Registry(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    clock: Arc<dyn Clock>,
    state: RwLock<Arc<State>>,
    epoch: watch::Sender<u64>,
    /// Numbers the tokens of the configuration.
    numbered: AtomicU64,
    /// Held by whoever changes API tokens.
    editing: Arc<tokio::sync::Mutex<()>>,
    /// When each API token was last shown, since the start.
    used: Mutex<HashMap<String, UnixMillis>>,
    /// When credentials end whose callers are being answered.
    ends: Mutex<BTreeSet<UnixMillis>>,
}

/// Who may call at one moment.
#[derive(Clone, Default)]
struct State {
    /// Whether everybody who reaches the gateway may call.
    open: bool,
    callers: HashMap<String, CallerConfig>,
    /// Names of the configuration's tokens, by the hash of the token: a look-up by hash tells nothing by its time.
    configured: HashMap<[u8; 32], String>,
    /// Callers of the configuration's tokens, by the tokens' names.
    configured_of: HashMap<String, String>,
    certificates: HashMap<PeerName, String>,
    issuers: HashMap<String, Issuer>,
    tokens: Arc<HashMap<String, TokenRecord>>,
}

/// It holds hashes of tokens.
impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.callers.keys()).finish()
    }
}

#[derive(Clone)]
struct Issuer {
    audiences: Vec<String>,
    algorithms: Vec<Algorithm>,
    keys: Arc<Keys>,
    /// Callers by subject.
    subjects: HashMap<String, String>,
}

impl Registry {
    /// A registry of these callers, without API tokens yet.
    #[must_use]
    pub fn new(settings: Settings, clock: Arc<dyn Clock>) -> Self {
        let shared = Shared {
            clock,
            state: RwLock::default(),
            epoch: watch::Sender::new(0),
            numbered: AtomicU64::new(0),
            editing: Arc::default(),
            used: Mutex::default(),
            ends: Mutex::default(),
        };
        let registry = Self(Arc::new(shared));
        registry.replace(settings);
        registry
    }

    /// Takes over callers and issuers. Calls and streams that are open are told by [`Registry::changes`].
    pub fn replace(&self, settings: Settings) {
        self.change(|old| {
            let open = settings.callers.is_empty();
            let mut state = State { open, tokens: Arc::clone(&old.tokens), ..State::default() };
            for caller in &settings.callers {
                for secret in &caller.tokens {
                    let hash = hash(secret);
                    // A token that stays keeps its name, so that what is open under it goes on.
                    let kept = old
                        .configured
                        .get(&hash)
                        .filter(|id| old.configured_of.get(*id) == Some(&caller.name));
                    let id = kept.cloned().unwrap_or_else(|| self.number(&caller.name));
                    state.configured_of.insert(id.clone(), caller.name.clone());
                    state.configured.insert(hash, id);
                }
                state
                    .certificates
                    .extend(caller.certificates.iter().map(|name| (name.clone(), caller.name.clone())));
            }
            for (config, keys) in settings.issuers {
                // Keys that were fetched already need not be fetched again.
                let known = old.issuers.get(&config.issuer).filter(|known| known.keys.same_url(&keys));
                let keys = known.map_or(keys, |known| Arc::clone(&known.keys));
                state.issuers.insert(config.issuer.clone(), Issuer::new(config, keys, &settings.callers));
            }
            state.callers =
                settings.callers.into_iter().map(|caller| (caller.name.clone(), caller)).collect();
            state
        });
    }

    /// Lets go of every caller and every credential of the configuration that the roll does not have, and takes nothing
    /// else of it; whether any was left to let go of. Where nobody remains, nobody may call.
    pub fn let_go(&self, roll: &Roll) -> bool {
        let mut is_less = false;
        self.change(|old| {
            let state = old.cut_to(roll);
            is_less = state.size() < old.size();
            state
        });
        is_less
    }

    /// Takes over the API tokens, all of them.
    pub fn set_tokens(&self, tokens: Vec<TokenRecord>) {
        let tokens: HashMap<_, _> = tokens.into_iter().map(|token| (token.id.clone(), token)).collect();
        self.0.used.lock().unwrap_or_else(PoisonError::into_inner).retain(|id, _| tokens.contains_key(id));
        self.change(|old| State { tokens: Arc::new(tokens), ..old.clone() });
    }

    /// The API tokens, the oldest first.
    #[must_use]
    pub fn tokens(&self) -> Vec<TokenRecord> {
        let mut tokens: Vec<_> = self.state().tokens.values().cloned().collect();
        tokens.sort_by(|a, b| (a.created_ms, &a.id).cmp(&(b.created_ms, &b.id)));
        tokens
    }

    /// Waits for the right to change API tokens, which one has at a time: between reading and setting them, nobody else
    /// may.
    pub async fn edit(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.0.editing).lock_owned().await
    }

    /// When an API token was last shown, as far as that was since the start.
    #[must_use]
    pub fn last_used(&self, id: &str) -> Option<UnixMillis> {
        self.0.used.lock().unwrap_or_else(PoisonError::into_inner).get(id).copied()
    }

    /// Whether a caller of this name is configured.
    #[must_use]
    pub fn knows(&self, caller: &str) -> bool {
        self.state().callers.contains_key(caller)
    }

    /// The caller of this name, as if it had come with the credentials of `another`; `None` where it is not configured.
    #[must_use]
    pub fn by_name(&self, name: &str, another: &Caller) -> Option<Caller> {
        let state = self.state();
        let config = state.callers.get(name)?;
        let (namespace, groups) = (config.namespace.clone(), config.groups.clone());
        Some(Caller { name: config.name.clone(), namespace, groups, ..another.clone() })
    }

    /// A number that moves whenever who may call may have changed.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.epoch.subscribe()
    }

    /// The same for whoever goes on answering `caller`: it also moves when a credential of this caller ends by itself.
    #[must_use]
    pub fn changes_for(&self, caller: &Caller) -> watch::Receiver<u64> {
        self.0.ends.lock().unwrap_or_else(PoisonError::into_inner).extend(caller.expires_ms());
        self.changes()
    }

    /// Who calls. Where no caller is configured, which the configuration allows on a loopback address alone, everybody who
    /// reaches the gateway is the caller `loopback`. A call that shows a client certificate and a bearer credential is
    /// somebody's only if both are the same caller's. It may wait for an issuer's keys.
    ///
    /// # Errors
    /// Why the call is nobody's.
    pub async fn identify(&self, presented: &Presented<'_>, now_ms: UnixMillis) -> Result<Caller, Stranger> {
        let state = self.state();
        if state.open {
            return Ok(Caller::loopback());
        }
        let certificate = presented.certificate.map(|names| state.by_certificate(names)).transpose()?;
        let bearer = match presented.authorization {
            Some(value) => Some(self.by_bearer(&state, value, now_ms).await?),
            None => None,
        };
        let (credential, certificate) = match (bearer, certificate) {
            (Some(bearer), certificate) => (bearer, certificate),
            (None, Some(certificate)) => (certificate, None),
            (None, None) => return Err(Stranger::Missing),
        };
        let caller = state.judge(credential, certificate, now_ms)?;
        if let Credential::Token { id } = &caller.credential {
            self.0.used.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), now_ms);
        }
        Ok(caller)
    }

    /// The same caller by what is known now: its credentials are judged anew, without being shown again.
    ///
    /// # Errors
    /// Why it is nobody's any more, or not this caller's.
    pub fn again(&self, caller: &Caller, now_ms: UnixMillis) -> Result<Caller, Stranger> {
        let state = self.state();
        let fresh = match &caller.credential {
            Credential::Loopback if state.open => return Ok(caller.clone()),
            Credential::Own => return Ok(caller.clone()),
            credential => state.judge(credential.clone(), caller.certificate.clone(), now_ms)?,
        };
        let same = fresh.name == caller.name && fresh.namespace == caller.namespace;
        same.then_some(fresh).ok_or(Stranger::Ambiguous)
    }

    /// Keeps issuers' keys fresh and notices tokens that end, until the drain begins.
    pub async fn run(self, drain: Drain) {
        let tick = Duration::from_millis(IDENTITY_TICK_MS);
        let keys = async {
            loop {
                let issuers: Vec<_> =
                    self.state().issuers.values().map(|issuer| Arc::clone(&issuer.keys)).collect();
                for keys in issuers {
                    if keys.look_after(self.0.clock.monotonic()).await {
                        self.tell();
                    }
                }
                tokio::time::sleep(tick).await;
            }
        };
        let ends = async {
            let mut seen_ms = self.0.clock.wall();
            loop {
                tokio::time::sleep(tick).await;
                let now_ms = self.0.clock.wall();
                let passed = |end: UnixMillis| seen_ms < end && end <= now_ms;
                let tokens = self.state().tokens.values().filter_map(|token| token.expires_ms).any(passed);
                if self.have_ended(now_ms) || tokens {
                    self.tell();
                }
                seen_ms = now_ms;
            }
        };
        tokio::select! {
            () = async { tokio::join!(keys, ends); } => {}
            () = drain.begun() => {}
        }
    }

    /// Whether a credential has ended whose caller is being answered; it is told once.
    fn have_ended(&self, now_ms: UnixMillis) -> bool {
        let mut ends = self.0.ends.lock().unwrap_or_else(PoisonError::into_inner);
        let later = ends.split_off(&now_ms.saturating_add(1));
        !std::mem::replace(&mut *ends, later).is_empty()
    }

    async fn by_bearer(
        &self,
        state: &State,
        value: &str,
        now_ms: UnixMillis,
    ) -> Result<Credential, Stranger> {
        let (scheme, secret) = value.split_once(' ').ok_or(Stranger::Malformed)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(Stranger::Malformed);
        }
        let secret = secret.trim();
        if let Some(id) = state.configured.get(&hash_bytes(secret)) {
            return Ok(Credential::Token { id: id.clone() });
        }
        if let Some(id) = token::id_of(secret) {
            let known = state.tokens.get(&id).filter(|record| record.is_of(secret));
            return known.map(|_| Credential::Token { id }).ok_or(Stranger::UnknownToken);
        }
        if secret.matches('.').count() == 2 && !state.issuers.is_empty() {
            return self.by_jwt(state, secret, now_ms).await;
        }
        Err(Stranger::UnknownToken)
    }

    async fn by_jwt(&self, state: &State, text: &str, now_ms: UnixMillis) -> Result<Credential, Stranger> {
        let token = Token::parse(text)?;
        let issuer = state.issuers.get(&token.claims.issuer).ok_or(Stranger::WrongIssuer)?;
        if !issuer.algorithms.contains(&token.algorithm) {
            return Err(Stranger::WrongAlgorithm);
        }
        let key = match token.verify(&issuer.keys.current()) {
            Err(Stranger::UnknownKey) => {
                if issuer.keys.look_for_unknown(self.0.clock.monotonic()).await {
                    self.tell();
                }
                token.verify(&issuer.keys.current())?
            }
            verified => verified?,
        };
        let claims = token.claims;
        let now_s = now_ms.div_euclid(1_000);
        if claims.not_before_s.is_some_and(|begin| begin > now_s.saturating_add(JWT_LEEWAY_S)) {
            return Err(Stranger::NotYetValid);
        }
        let audience = claims.audiences.into_iter().find(|audience| issuer.audiences.contains(audience));
        Ok(Credential::Jwt {
            issuer: claims.issuer,
            subject: claims.subject,
            audience: audience.ok_or(Stranger::WrongAudience)?,
            key,
            expires_s: claims.expires_s.saturating_add(JWT_LEEWAY_S),
        })
    }

    fn number(&self, caller: &str) -> String {
        format!("{caller}#{}", self.0.numbered.fetch_add(1, Ordering::Relaxed).saturating_add(1))
    }

    fn state(&self) -> Arc<State> {
        Arc::clone(&self.0.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change(&self, next: impl FnOnce(&State) -> State) {
        {
            let mut state = self.0.state.write().unwrap_or_else(PoisonError::into_inner);
            *state = Arc::new(next(&state));
        }
        self.tell();
    }

    fn tell(&self) {
        self.0.epoch.send_modify(|epoch| *epoch = epoch.wrapping_add(1));
    }
}

impl State {
    fn by_certificate(&self, names: &PeerNames) -> Result<Credential, Stranger> {
        let known: Vec<_> =
            names.sans.iter().filter_map(|san| Some((san, self.certificates.get(san)?))).collect();
        let callers: BTreeSet<_> = known.iter().map(|(_, caller)| caller).collect();
        if callers.len() > 1 {
            return Err(Stranger::Ambiguous);
        }
        let (san, _) = known.first().ok_or(Stranger::UnknownCertificate)?;
        Ok(Credential::Certificate { san: (*san).clone(), not_after_s: names.not_after_s })
    }

    /// The caller whose the credentials are.
    fn judge(
        &self,
        credential: Credential,
        certificate: Option<Credential>,
        now_ms: UnixMillis,
    ) -> Result<Caller, Stranger> {
        let name = self.owner(&credential, now_ms)?;
        if let Some(certificate) = &certificate
            && self.owner(certificate, now_ms)? != name
        {
            return Err(Stranger::Ambiguous);
        }
        let caller = self.callers.get(name).ok_or(Stranger::UnknownCaller)?;
        Ok(Caller {
            name: caller.name.clone(),
            namespace: caller.namespace.clone(),
            groups: caller.groups.clone(),
            credential,
            certificate,
        })
    }

    /// The name of the caller whose a proven credential is at this moment.
    fn owner(&self, credential: &Credential, now_ms: UnixMillis) -> Result<&String, Stranger> {
        let in_time = |end_s: i64| end_s.saturating_mul(1_000) > now_ms;
        match credential {
            Credential::Loopback | Credential::Own => Err(Stranger::Missing),
            Credential::Token { id } => {
                if let Some(caller) = self.configured_of.get(id) {
                    return Ok(caller);
                }
                let record = self.tokens.get(id).ok_or(Stranger::UnknownToken)?;
                if planted::active("stale-identity") {
                    return Ok(&record.caller);
                }
                record.usable(now_ms).map(|()| &record.caller)
            }
            Credential::Certificate { not_after_s, .. } if !in_time(*not_after_s) => Err(Stranger::Expired),
            Credential::Certificate { san, .. } => {
                self.certificates.get(san).ok_or(Stranger::UnknownCertificate)
            }
            Credential::Jwt { expires_s, .. } if !in_time(*expires_s) => Err(Stranger::Expired),
            Credential::Jwt { issuer, subject, audience, key, .. } => {
                let issuer = self.issuers.get(issuer).ok_or(Stranger::WrongIssuer)?;
                if !issuer.audiences.contains(audience) {
                    return Err(Stranger::WrongAudience);
                }
                if !issuer.keys.current().has(key) {
                    return Err(Stranger::UnknownKey);
                }
                issuer.subjects.get(subject).ok_or(Stranger::UnknownSubject)
            }
        }
    }
}

impl Issuer {
    fn new(config: IssuerConfig, keys: Arc<Keys>, callers: &[CallerConfig]) -> Self {
        let subjects = callers.iter().flat_map(|caller| {
            let own = caller.subjects.iter().filter(|subject| subject.issuer == config.name);
            own.map(|subject| (subject.subject.clone(), caller.name.clone()))
        });
        let subjects = subjects.collect();
        let IssuerConfig { audiences, algorithms, .. } = config;
        Self { audiences, algorithms, keys, subjects }
    }
}

fn hash(secret: &Secret) -> [u8; 32] {
    hash_bytes(secret.expose_secret())
}

fn hash_bytes(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

#[cfg(test)]
mod tests;
