//! API tokens as operators make, list, replace and end them. A change and its audit record are durable in one
//! transaction before anybody is let in or kept out by it.

use prost_types::Timestamp;
use secrecy::ExposeSecret as _;
use tokio::sync::OwnedMutexGuard;

use super::super::call::Gateway;
use super::super::context::Context;
use super::super::fault::{Code, Fault, Reason, Retry};
use super::super::outcome;
use super::Errand;
use crate::contract::{Params, Sensitivity, Violations};
use crate::domain::clock::UnixMillis;
use crate::domain::limits::{TOKEN_KEPT_MS, TOKENS_MAX};
use crate::identity::{Stranger, TokenRecord, token};
use crate::proto::v1::{
    ApiToken, ApiTokenState, CreateTokenRequest, CreateTokenResponse, ListTokensRequest, ListTokensResponse,
    RevokeTokenRequest, RevokeTokenResponse, RotateTokenRequest, RotateTokenResponse,
};
use crate::store::{Batch, Entry, Error as StoreError};

const CREATE: &str = "tollgate.v1.TokenService/CreateToken";
const LIST: &str = "tollgate.v1.TokenService/ListTokens";
const ROTATE: &str = "tollgate.v1.TokenService/RotateToken";
const REVOKE: &str = "tollgate.v1.TokenService/RevokeToken";

impl Gateway {
    /// Makes a token of a caller.
    ///
    /// # Errors
    /// PERMISSION_DENIED for whoever may not, INVALID_ARGUMENT for a faulty request, NOT_FOUND for a caller that is not
    /// configured, RESOURCE_EXHAUSTED when there are too many tokens, UNAVAILABLE when the store cannot be written.
    pub async fn create_token(
        &self,
        context: &Context,
        request: &CreateTokenRequest,
    ) -> Result<CreateTokenResponse, Fault> {
        let params = public(&[
            ("caller", &request.caller),
            ("lifetime_s", &request.lifetime_s.to_string()),
            ("note", &request.note),
        ]);
        let create = async |errand: &mut Errand| {
            checked(Violations::of(request))?;
            let editing = self.registry.edit().await;
            let (secret, made) = self.make_token(&request.caller, request.lifetime_s)?;
            let made = TokenRecord { note: request.note.clone(), ..made };
            self.keep_tokens(editing, vec![made.clone()], errand).await?;
            Ok((secret, made))
        };
        let ((token, made), call) = self.errand(context, CREATE, params, create).await?;
        let token = token.expose_secret().to_owned();
        Ok(CreateTokenResponse { token, api_token: Some(self.token_message(made)), call: Some(call) })
    }

    /// Lists tokens.
    ///
    /// # Errors
    /// PERMISSION_DENIED for whoever may not, INVALID_ARGUMENT for a faulty request.
    pub async fn list_tokens(
        &self,
        context: &Context,
        request: &ListTokensRequest,
    ) -> Result<ListTokensResponse, Fault> {
        let list = async |_: &mut Errand| {
            checked(Violations::of(request))?;
            let of_caller =
                |token: &TokenRecord| ["", token.caller.as_str()].contains(&request.caller.as_str());
            let tokens = self.registry.tokens().into_iter().filter(of_caller);
            let shown = |token: &ApiToken| request.ended || token.state() == ApiTokenState::Active;
            Ok(tokens.map(|token| self.token_message(token)).filter(shown).collect())
        };
        let (tokens, call) = self.errand(context, LIST, public(&[("caller", &request.caller)]), list).await?;
        Ok(ListTokensResponse { tokens, call: Some(call) })
    }

    /// Makes a token in another one's place.
    ///
    /// # Errors
    /// As for [`Gateway::create_token`]; NOT_FOUND for a token that there is not, FAILED_PRECONDITION for one that has
    /// ended.
    pub async fn rotate_token(
        &self,
        context: &Context,
        request: &RotateTokenRequest,
    ) -> Result<RotateTokenResponse, Fault> {
        let params = public(&[
            ("id", &request.id),
            ("overlap_s", &request.overlap_s.to_string()),
            ("lifetime_s", &request.lifetime_s.to_string()),
        ]);
        let rotate = async |errand: &mut Errand| {
            checked(Violations::of(request))?;
            let editing = self.registry.edit().await;
            let mut old = self.token_of(&request.id)?;
            let now_ms = self.clock.wall();
            old.usable(now_ms).map_err(|why| has_ended(&old, why))?;
            let end_ms = after(now_ms, request.overlap_s);
            old.expires_ms = Some(old.expires_ms.map_or(end_ms, |earlier| earlier.min(end_ms)));
            let (secret, made) = self.make_token(&old.caller, request.lifetime_s)?;
            let made = TokenRecord { replaces: Some(old.id.clone()), note: old.note.clone(), ..made };
            self.keep_tokens(editing, vec![made.clone(), old.clone()], errand).await?;
            Ok((secret, made, old))
        };
        let ((token, made, old), call) = self.errand(context, ROTATE, params, rotate).await?;
        Ok(RotateTokenResponse {
            token: token.expose_secret().to_owned(),
            api_token: Some(self.token_message(made)),
            replaced: Some(self.token_message(old)),
            call: Some(call),
        })
    }

    /// Ends a token.
    ///
    /// # Errors
    /// PERMISSION_DENIED for whoever may not, INVALID_ARGUMENT for a faulty request, NOT_FOUND for a token that there is
    /// not, UNAVAILABLE when the store cannot be written.
    pub async fn revoke_token(
        &self,
        context: &Context,
        request: &RevokeTokenRequest,
    ) -> Result<RevokeTokenResponse, Fault> {
        let revoke = async |errand: &mut Errand| {
            checked(Violations::of(request))?;
            errand.record.note = Some(request.reason.clone());
            let editing = self.registry.edit().await;
            let mut token = self.token_of(&request.id)?;
            if token.revoked_ms.is_none() {
                token.revoked_ms = Some(self.clock.wall());
                self.keep_tokens(editing, vec![token.clone()], errand).await?;
            }
            Ok(token)
        };
        let (token, call) = self.errand(context, REVOKE, public(&[("id", &request.id)]), revoke).await?;
        Ok(RevokeTokenResponse { api_token: Some(self.token_message(token)), call: Some(call) })
    }

    fn make_token(
        &self,
        caller: &str,
        lifetime_s: i64,
    ) -> Result<(secrecy::SecretString, TokenRecord), Fault> {
        if !self.registry.knows(caller) {
            let message = format!("no caller `{caller}` is configured");
            let fault = Fault::new(Code::NotFound, Reason::CallerUnknown, message).retry(Retry::Never);
            return Err(fault);
        }
        let now_ms = self.clock.wall();
        if self.registry.tokens().iter().filter(|token| !is_outlived(token, now_ms)).count() >= TOKENS_MAX {
            let message = "there are too many tokens; those that ended are forgotten after 90 days";
            let fault = Fault::new(Code::ResourceExhausted, Reason::Overloaded, message);
            return Err(fault.with("limit", "TOKENS_MAX").retry(Retry::Never));
        }
        let (secret, made) = token::make(caller, now_ms).map_err(|_| {
            let message = "the system gives no random bytes";
            Fault::new(Code::Internal, Reason::Internal, message).retry(Retry::Never)
        })?;
        let expires_ms = (lifetime_s > 0).then(|| after(now_ms, lifetime_s));
        Ok((secret, TokenRecord { expires_ms, ..made }))
    }

    fn token_of(&self, id: &str) -> Result<TokenRecord, Fault> {
        let found = self.registry.tokens().into_iter().find(|token| token.id == id);
        found.ok_or_else(|| {
            let message = "there is no token of this name";
            let mut fault = Fault::new(Code::NotFound, Reason::TokenUnknown, message);
            fault.resource = Some(("token".to_owned(), id.to_owned()));
            fault.retry(Retry::Never)
        })
    }

    /// Makes changed tokens and the record of it durable, forgets what ended long ago, and lets the registry know. A
    /// task of its own does it, so that no call that is dropped half-way leaves a revoked token at work.
    async fn keep_tokens(
        &self,
        editing: OwnedMutexGuard<()>,
        changed: Vec<TokenRecord>,
        errand: &mut Errand,
    ) -> Result<(), Fault> {
        errand.record.conclude("succeeded");
        let audit = vec![errand.record.row().map_err(|error| unkept(&error))?];
        let now_ms = self.clock.wall();
        let others = self.registry.tokens().into_iter();
        let others = others.filter(|token| changed.iter().all(|one| one.id != token.id));
        let (outlived, kept): (Vec<_>, Vec<_>) = others.partition(|token| is_outlived(token, now_ms));
        let gone = outlived.into_iter().map(|token| Ok(entry(token.id, None)));
        let put = changed.iter().map(|token| Ok(entry(token.id.clone(), Some(serde_json::to_vec(token)?))));
        let entries = put.chain(gone).collect::<Result<_, serde_json::Error>>();
        let batch = Batch { audit, entries: entries.map_err(|error| unkept(&error))?, ..Batch::default() };
        let (store, registry) = (self.store.clone(), self.registry.clone());
        let work = tokio::spawn(async move {
            let stored = store.commit(batch).await;
            // What may be stored may be what a restart finds; a revocation is then better obeyed than not.
            let revokes = changed.iter().any(|token| token.revoked_ms.is_some());
            if stored.is_ok() || (revokes && stored == Err(StoreError::Uncertain)) {
                registry.set_tokens(kept.into_iter().chain(changed).collect());
            }
            drop(editing);
            stored.map(drop)
        });
        let stored = work.await.unwrap_or(Err(StoreError::Closed));
        stored.map_err(|error| outcome::store_down(&error, "the tokens could not be changed"))?;
        errand.kept = true;
        Ok(())
    }

    fn token_message(&self, token: TokenRecord) -> ApiToken {
        let state = match token.usable(self.clock.wall()) {
            Err(Stranger::Revoked) => ApiTokenState::Revoked,
            Err(_) => ApiTokenState::Expired,
            Ok(()) if !self.registry.knows(&token.caller) => ApiTokenState::Orphaned,
            Ok(()) => ApiTokenState::Active,
        };
        ApiToken {
            last_used: self.registry.last_used(&token.id).map(instant),
            id: token.id,
            caller: token.caller,
            state: state.into(),
            created: Some(instant(token.created_ms)),
            expires: token.expires_ms.map(instant),
            revoked: token.revoked_ms.map(instant),
            replaces: token.replaces.unwrap_or_default(),
            note: token.note,
        }
    }
}

fn entry(id: String, body: Option<Vec<u8>>) -> Entry {
    Entry { kind: token::KIND, id, body }
}

fn is_outlived(token: &TokenRecord, now_ms: UnixMillis) -> bool {
    let ended_ms = [token.revoked_ms, token.expires_ms].into_iter().flatten().min();
    ended_ms.is_some_and(|end| end.saturating_add(TOKEN_KEPT_MS) <= now_ms)
}

fn after(now_ms: UnixMillis, seconds: i64) -> UnixMillis {
    now_ms.saturating_add(seconds.saturating_mul(1_000))
}

fn instant(ms: UnixMillis) -> Timestamp {
    let nanos = i32::try_from(ms.rem_euclid(1_000)).unwrap_or_default().saturating_mul(1_000_000);
    Timestamp { seconds: ms.div_euclid(1_000), nanos }
}

fn checked(violations: Violations) -> Result<(), Fault> {
    let violations = violations.into_vec();
    if violations.is_empty() { Ok(()) } else { Err(Fault::invalid(violations)) }
}

fn public(pairs: &[(&str, &str)]) -> Params {
    let mut params = Params::default();
    for (name, value) in pairs.iter().filter(|(_, value)| !["", "0"].contains(value)) {
        params.push(*name, *value, Sensitivity::Public);
    }
    params
}

fn has_ended(token: &TokenRecord, why: Stranger) -> Fault {
    let message = format!("the token has ended (`{why}`); make a new one");
    let mut fault = Fault::new(Code::FailedPrecondition, Reason::TokenEnded, message);
    fault.precondition = Some(("TOKEN_ACTIVE".to_owned(), token.id.clone()));
    fault.retry(Retry::Never)
}

fn unkept(error: &dyn std::error::Error) -> Fault {
    tracing::error!(%error, "a token or its audit record cannot be encoded");
    Fault::new(Code::Internal, Reason::Internal, "the tokens could not be changed").retry(Retry::Never)
}
