//! Callers by API tokens and by JWTs, over the wire: what lets them in, what keeps them out, what the audit log says of
//! it, and that it outlasts a restart.

use tollgate::domain::clock::Clock as _;
use tollgate::proto::v1::audit_service_client::AuditServiceClient;
use tollgate::proto::v1::event_service_client::EventServiceClient;
use tollgate::proto::v1::refund_service_client::RefundServiceClient;
use tollgate::proto::v1::token_service_client::TokenServiceClient;
use tollgate::proto::v1::{
    ApiTokenState, AuditPhase, AuditRecord, CreateTokenRequest, CreateTokenResponse, ListRefundsRequest,
    ListTokensRequest, RevokeTokenRequest, RotateTokenRequest, SearchAuditRecordsRequest, SubscribeRequest,
    SubscribeResponse, subscribe_response,
};
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Status, Streaming};
use tonic_types::StatusExt as _;

use crate::jwt::{Issuer, unsigned};
use crate::rig::{OPERATOR_TOKEN, Rig, TOKEN, until};

/// A read with this credential.
async fn read(rig: &Rig, credential: &str) -> Result<(), Status> {
    let mut request = Request::new(ListRefundsRequest::default());
    let value = MetadataValue::try_from(format!("Bearer {credential}")).unwrap();
    request.metadata_mut().insert("authorization", value);
    RefundServiceClient::new(rig.channel()).list_refunds(request).await.map(drop)
}

/// Why a read with this credential is nobody's.
async fn refused(rig: &Rig, credential: &str) -> String {
    let status = read(rig, credential).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated, "{status}");
    status.get_details_error_info().unwrap().metadata["credential"].clone()
}

async fn create(rig: &Rig, lifetime_s: i64) -> CreateTokenResponse {
    let request = CreateTokenRequest { caller: "rig".into(), lifetime_s, note: "for a test".into() };
    TokenServiceClient::new(rig.operator()).create_token(request).await.unwrap().into_inner()
}

/// The audit records of a method.
async fn records(rig: &Rig, rpc: &str) -> Vec<AuditRecord> {
    let rpc = format!("tollgate.v1.{rpc}");
    let mut audit = AuditServiceClient::new(rig.operator());
    until(async || {
        let request = SearchAuditRecordsRequest { rpc: rpc.clone(), page_size: 100, ..Default::default() };
        let found = audit.search_audit_records(request).await.unwrap().into_inner().records;
        (!found.is_empty()).then_some(found)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_works_from_its_making_to_its_revocation_and_over_restarts() {
    let rig = Rig::start().await;
    let made = create(&rig, 0).await;
    let id = made.api_token.unwrap().id;
    read(&rig, &made.token).await.unwrap();
    let listed = TokenServiceClient::new(rig.operator()).list_tokens(ListTokensRequest::default()).await;
    let listed = listed.unwrap().into_inner().tokens;
    assert_eq!(
        (listed.len(), listed[0].id.as_str(), listed[0].state()),
        (1, id.as_str(), ApiTokenState::Active)
    );
    assert!(listed[0].last_used.is_some() && listed[0].note == "for a test");

    let rig = rig.restart().await;
    read(&rig, &made.token).await.unwrap();
    let by_token = records(&rig, "RefundService/ListRefunds").await;
    assert!(by_token.iter().all(|record| record.identity == format!("token {id}")), "{by_token:?}");
    let revoke = RevokeTokenRequest { id: id.clone(), reason: "it was lost".into() };
    let mut tokens = TokenServiceClient::new(rig.operator());
    let revoked = tokens.revoke_token(revoke.clone()).await.unwrap().into_inner().api_token.unwrap();
    assert_eq!(revoked.state(), ApiTokenState::Revoked);
    assert_eq!(refused(&rig, &made.token).await, "revoked");
    tokens.revoke_token(revoke).await.expect("revoking it again changes nothing");

    let rig = rig.restart().await;
    assert_eq!(refused(&rig, &made.token).await, "revoked");
    read(&rig, TOKEN).await.expect("the other credentials stay");
    let acts = records(&rig, "TokenService/RevokeToken").await;
    let act = acts.first().unwrap();
    assert_eq!(
        (act.phase(), act.caller.as_str(), act.note.as_str()),
        (AuditPhase::Admin, "operator", "it was lost")
    );
    assert!(act.json.contains(&id), "{}", act.json);
    let secret = made.token.rsplit('_').next().unwrap();
    for record in records(&rig, "TokenService/CreateToken").await {
        assert!(!record.json.contains(secret), "the token is in the audit log");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_ends_with_its_time_and_its_overlap() {
    let rig = Rig::start().await;
    let first = create(&rig, 3_600).await;
    let id = first.api_token.unwrap().id;
    let mut tokens = TokenServiceClient::new(rig.operator());
    let rotate = RotateTokenRequest { id: id.clone(), overlap_s: 60, lifetime_s: 7_200 };
    let second = tokens.rotate_token(rotate.clone()).await.unwrap().into_inner();
    assert_eq!(second.api_token.as_ref().unwrap().replaces, id);
    read(&rig, &first.token).await.unwrap();
    read(&rig, &second.token).await.unwrap();

    rig.clock.advance(std::time::Duration::from_secs(60));
    assert_eq!(refused(&rig, &first.token).await, "expired");
    read(&rig, &second.token).await.unwrap();
    let again = tokens.rotate_token(rotate).await.unwrap_err();
    assert_eq!(again.get_details_error_info().unwrap().reason, "TOKEN_ENDED");

    rig.clock.advance(std::time::Duration::from_secs(7_200));
    assert_eq!(refused(&rig, &second.token).await, "expired");
    let all = ListTokensRequest { ended: true, ..Default::default() };
    let states: Vec<_> =
        tokens.list_tokens(all).await.unwrap().into_inner().tokens.iter().map(|one| one.state()).collect();
    assert_eq!(states, [ApiTokenState::Expired, ApiTokenState::Expired]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_for_operators_and_for_callers_that_there_are() {
    let rig = Rig::start().await;
    let request = |caller: &str| CreateTokenRequest { caller: caller.into(), ..Default::default() };
    let own = TokenServiceClient::new(rig.wire()).create_token(request("rig")).await.unwrap_err();
    assert_eq!(own.code(), Code::PermissionDenied);
    let mut tokens = TokenServiceClient::new(rig.operator());
    let unknown = tokens.create_token(request("nobody")).await.unwrap_err();
    assert_eq!(unknown.get_details_error_info().unwrap().reason, "CALLER_UNKNOWN");
    let faulty = tokens.create_token(CreateTokenRequest { lifetime_s: -1, ..request("") }).await.unwrap_err();
    assert_eq!(faulty.get_details_bad_request().unwrap().field_violations.len(), 2);
    let revoke = RevokeTokenRequest { id: "tok_0000000000000000".into(), reason: "for a test".into() };
    let unknown = tokens.revoke_token(revoke).await.unwrap_err();
    assert_eq!(unknown.get_details_error_info().unwrap().reason, "TOKEN_UNKNOWN");
    let none = tokens.list_tokens(ListTokensRequest { ended: true, ..Default::default() }).await.unwrap();
    assert!(none.into_inner().tokens.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_jwt_of_a_trusted_issuer_is_its_subjects_caller() {
    let mut issuer = Issuer::new(1);
    let rig = Rig::start_with(|config| issuer.trust(config, "rig", "orders-service")).await;
    let now_s = rig.clock.wall() / 1_000;
    let sound = Issuer::claims("orders-service", now_s);
    let first = issuer.sign(&sound);
    read(&rig, &first).await.unwrap();
    let by_jwt = records(&rig, "RefundService/ListRefunds").await;
    assert_eq!(by_jwt[0].identity, "jwt https://idp.example.org orders-service");
    assert_eq!(by_jwt[0].caller, "rig");

    let none = unsigned(&serde_json::json!({"alg": "none"}), &sound);
    assert_eq!(refused(&rig, &format!("{none}.")).await, "wrong_algorithm");
    assert_eq!(refused(&rig, &issuer.sign(&Issuer::claims("somebody", now_s))).await, "unknown_subject");
    let mut old = sound.clone();
    old["exp"] = (now_s - 60).into();
    assert_eq!(refused(&rig, &issuer.sign(&old)).await, "expired");
    assert_eq!(refused(&rig, &format!("{first}A")).await, "bad_signature");

    // A key that is published later is found when it is needed; the one that is withdrawn ends.
    issuer.rotate(2);
    let second = issuer.sign(&sound);
    assert_eq!(refused(&rig, &second).await, "unknown_key");
    issuer.publish(&issuer.key_set());
    until(async || read(&rig, &second).await.ok()).await;
    assert_eq!(refused(&rig, &first).await, "unknown_key");
}

/// An open event stream of whoever has this credential.
async fn subscribe(rig: &Rig, credential: &str) -> Streaming<SubscribeResponse> {
    let mut request = Request::new(SubscribeRequest::default());
    let value = MetadataValue::try_from(format!("Bearer {credential}")).unwrap();
    request.metadata_mut().insert("authorization", value);
    EventServiceClient::new(rig.channel()).subscribe(request).await.unwrap().into_inner()
}

/// How a stream ends.
async fn end_of(mut stream: Streaming<SubscribeResponse>) -> (Code, String) {
    let status = loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the stream ended without a word"),
            Err(status) => break status,
        }
    };
    let metadata = status.get_details_error_info().unwrap().metadata;
    assert!(metadata.contains_key("cursor"), "{metadata:?}");
    (status.code(), metadata["credential"].clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_stream_ends_with_its_callers_credential_and_no_other_does() {
    let issuer = Issuer::new(1);
    let rig = Rig::start_with(|config| issuer.trust(config, "rig", "orders-service")).await;
    let made = create(&rig, 0).await;
    let now_s = rig.clock.wall() / 1_000;
    let by_token = subscribe(&rig, &made.token).await;
    let by_jwt = subscribe(&rig, &issuer.sign(&Issuer::claims("orders-service", now_s))).await;
    let mut stays = subscribe(&rig, TOKEN).await;

    let revoke = RevokeTokenRequest { id: made.api_token.unwrap().id, reason: "it was lost".into() };
    TokenServiceClient::new(rig.operator()).revoke_token(revoke).await.unwrap();
    assert_eq!(end_of(by_token).await, (Code::Unauthenticated, "revoked".into()));
    rig.clock.advance(std::time::Duration::from_secs(631));
    assert_eq!(end_of(by_jwt).await, (Code::Unauthenticated, "expired".into()));

    rig.payment(100).await;
    let event = until(async || match stays.message().await.unwrap().unwrap().item {
        Some(subscribe_response::Item::Event(event)) => Some(event),
        _ => None,
    });
    assert!(!event.await.id.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_sends_two_credentials_is_nobody() {
    let rig = Rig::start().await;
    let mut request = Request::new(ListRefundsRequest::default());
    for token in [TOKEN, OPERATOR_TOKEN] {
        let value = MetadataValue::try_from(format!("Bearer {token}")).unwrap();
        request.metadata_mut().append("authorization", value);
    }
    let status = RefundServiceClient::new(rig.channel()).list_refunds(request).await.unwrap_err();
    assert_eq!(status.get_details_error_info().unwrap().metadata["credential"], "malformed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_to_identify_add_up_in_the_audit_log() {
    let rig = Rig::start().await;
    let tries = [("wrong-token-of-some-length", 3), ("a.b.c", 2)];
    for (credential, times) in tries {
        for _ in 0..times {
            refused(&rig, credential).await;
        }
    }
    RefundServiceClient::new(rig.channel()).list_refunds(ListRefundsRequest::default()).await.unwrap_err();
    // What the pauses have not reported, the end does.
    let rig = rig.restart().await;
    let found = records(&rig, "RefundService/ListRefunds").await;
    let sum = |cause: &str| found.iter().filter(|one| one.note == cause).map(|one| one.count).sum::<i64>();
    assert_eq!((sum("unknown_token"), sum("missing")), (5, 1), "{found:?}");
}
