//! The client against a scripted server: what is sent, what counts as sent, and when it is sent again.

mod seen;
mod tls;

use std::io::Write as _;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::contract::{Host, Verb};
use crate::domain::limits::{BREAKER_FAILURES_MAX, BREAKER_PAUSE_MS_MIN, STRIPE_ANSWER_BYTES_MAX};
use crate::stripe::answer::Answer;
use crate::stripe::outgoing::{AccountHeader, Body, STRIPE_VERSION};
use crate::stripe::script::{Reply, Script, reply};

const BODY: &str = "charge=ch_1&amount=5&metadata[order]=1001";

fn refund() -> Outgoing {
    Outgoing {
        verb: Verb::Post,
        host: Host::Api,
        template: "/v1/refunds".to_owned(),
        path: "/v1/refunds".to_owned(),
        query: String::new(),
        body: Body::Form(BODY.to_owned()),
        idempotency_key: Some("tg1-key".to_owned()),
        version: STRIPE_VERSION.to_owned(),
        account: AccountHeader::StripeAccount("acct_1".to_owned()),
    }
}

fn always() -> Allowed {
    Arc::new(|| true)
}

/// What one attempt against a server that replies with these bytes comes to.
async fn first(bytes: impl Into<Vec<u8>>) -> Attempt {
    let script = Script::start(vec![Reply::Bytes(bytes.into())]).await;
    script.client().attempt(&refund(), 0, always()).await
}

#[tokio::test]
async fn a_request_carries_its_headers_and_bytes_and_the_answer_comes_back_whole() {
    let headers = "Request-Id: req_1\r\nIdempotent-Replayed: true\r\nStripe-Should-Retry: false\r\nRetry-After: 3\r\n\
                   Stripe-Notice: old version\r\nStripe-Rate-Limited-Reason: global-rate\r\n\
                   Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
    let script = Script::start(vec![reply(200, headers, r#"{"id":"re_1"}"#)]).await;
    let sent = script.client().send(&refund(), &Sender::Gateway, None).await;
    let answer = sent.answer().unwrap();
    assert_eq!((answer.status, answer.request_id.as_deref(), answer.replayed), (200, Some("req_1"), true));
    assert_eq!((answer.should_retry, answer.retry_after), (Some(false), Some(Duration::from_secs(3))));
    assert_eq!(
        (answer.rate_limited_reason.as_deref(), answer.date_s),
        (Some("global-rate"), Some(784_111_777))
    );
    assert_eq!(answer.json().unwrap()["id"], "re_1");

    let request = script.requests().await.remove(0);
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert_eq!(body, BODY);
    assert!(head.starts_with("POST /v1/refunds HTTP/1.1\r\n"), "{head}");
    for line in [
        "authorization: Bearer sk_test_scripted",
        "stripe-version: 2026-10-28.endive",
        "stripe-account: acct_1",
        "idempotency-key: tg1-key",
        "content-type: application/x-www-form-urlencoded",
        &format!("content-length: {}", BODY.len()),
        concat!("user-agent: tollgate/", env!("CARGO_PKG_VERSION")),
    ] {
        assert!(head.lines().any(|sent| sent == line), "{line} is not in\n{head}");
    }
    assert!(!head.contains("traceparent") && !head.contains("transfer-encoding"), "{head}");
}

#[tokio::test]
async fn only_a_post_carries_an_idempotency_key() {
    for verb in [Verb::Get, Verb::Delete] {
        let script = Script::start(vec![reply(200, "", "{}")]).await;
        let query = "expand[0]=charge".to_owned();
        let outgoing = Outgoing { verb, query, body: Body::Empty, account: AccountHeader::None, ..refund() };
        script.client().send(&outgoing, &Sender::Gateway, None).await;
        let request = script.requests().await.remove(0);
        assert!(
            request.starts_with(&format!("{} /v1/refunds?expand[0]=charge HTTP/1.1", verb.as_str())),
            "{request}"
        );
        for absent in ["idempotency-key", "stripe-account", "content-length", "transfer-encoding"] {
            assert!(!request.contains(absent), "{request}");
        }
    }
}

#[tokio::test]
async fn a_post_without_a_key_is_not_sent() {
    let script = Script::start(Vec::new()).await;
    let sent =
        script.client().send(&Outgoing { idempotency_key: None, ..refund() }, &Sender::Gateway, None).await;
    assert_eq!(sent.attempts, [Attempt::NotSent(Trouble::Unsendable)]);
}

#[tokio::test]
async fn an_upload_goes_to_the_files_host_and_never_goes_empty() {
    let script = Script::start(vec![reply(200, "", "{}")]).await;
    let options = Options { api_base: "https://api.invalid".to_owned(), ..script.options("http") };
    let client = Client::new(&options).unwrap();
    let upload = |bytes: &'static [u8]| Outgoing {
        host: Host::Files,
        body: Body::Multipart { boundary: "limit".to_owned(), bytes: bytes.into() },
        account: AccountHeader::StripeContext("org_1/acct_1".to_owned()),
        ..refund()
    };
    assert_eq!(
        client.send(&upload(b""), &Sender::Gateway, None).await.attempts,
        [Attempt::NotSent(Trouble::Unsendable)]
    );
    client.send(&upload(b"--limit--"), &Sender::Gateway, None).await;
    let request = script.requests().await.remove(0);
    assert!(request.contains("content-type: multipart/form-data; boundary=limit\r\n"), "{request}");
    assert!(request.contains("stripe-context: org_1/acct_1\r\n"), "{request}");
    assert!(request.ends_with("\r\n\r\n--limit--"), "{request}");
}

#[tokio::test]
async fn a_second_attempt_sends_the_same_key_and_bytes() {
    let script = Script::start(vec![reply(409, "", "{}"), reply(200, "", r#"{"id":"re_1"}"#)]).await;
    let sent = script.client().send(&refund(), &Sender::Gateway, None).await;
    assert_eq!((sent.attempts.len(), sent.answer().unwrap().status), (2, 200));
    let requests = script.requests().await;
    assert_eq!(requests[0], requests[1]);
    assert!(requests[0].contains("idempotency-key: tg1-key"));
}

#[tokio::test]
async fn a_connection_dropped_before_the_answer_is_broken_and_tried_again() {
    let script = Script::start(vec![Reply::Bytes(Vec::new()), reply(200, "", "{}")]).await;
    let sent = script.client().send(&refund(), &Sender::Gateway, None).await;
    assert_eq!((sent.attempts.len(), &sent.attempts[0]), (2, &Attempt::Broken(Trouble::Reset)));
    let requests = script.requests().await;
    assert_eq!(requests[0], requests[1]);
}

#[tokio::test]
async fn half_an_answer_is_none() {
    for half in [
        "HTTP/1.1 200 x\r\ncontent-length: 100\r\n\r\n{\"id\":",
        "HTTP/1.1 200 x\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{\"id\":\r\n",
        "HTTP/1.1 200 x\r\ncontent-le",
    ] {
        assert_eq!(first(half).await, Attempt::Broken(Trouble::Reset), "{half}");
    }
}

#[tokio::test]
async fn an_answer_that_never_comes_is_broken_when_the_time_of_an_attempt_is_over() {
    let script = Script::start(vec![Reply::Silence, reply(200, "", "{}")]).await;
    let options = Options { attempt_timeout: Duration::from_millis(300), ..script.options("http") };
    let attempt = Client::new(&options).unwrap().attempt(&refund(), 0, always()).await;
    assert_eq!(attempt, Attempt::Broken(Trouble::Timeout));
}

#[tokio::test]
async fn what_is_not_json_is_still_an_answer() {
    let page = "HTTP/1.1 502 x\r\ncontent-type: text/html\r\ncontent-length: 6\r\n\r\n<html>";
    let Attempt::Answered(answer) = first(page).await else { panic!("an answer was expected") };
    assert_eq!((answer.status, answer.json(), answer.error()), (502, None, None));
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let away = "HTTP/1.1 302 x\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";
    assert!(matches!(first(away).await, Attempt::Answered(Answer { status: 302, .. })));
}

#[tokio::test]
async fn what_is_not_http_is_broken() {
    assert_eq!(first("SSH-2.0-OpenSSH\r\n\r\n").await, Attempt::Broken(Trouble::Protocol));
}

#[tokio::test]
async fn an_answer_over_the_limit_is_not_read_on() {
    let mut bytes = Vec::new();
    write!(bytes, "HTTP/1.1 200 x\r\ncontent-length: {}\r\n\r\n", STRIPE_ANSWER_BYTES_MAX + 1).unwrap();
    bytes.resize(bytes.len() + STRIPE_ANSWER_BYTES_MAX + 1, b'1');
    assert_eq!(first(bytes).await, Attempt::Broken(Trouble::TooLarge));
}

#[tokio::test]
async fn nothing_was_sent_where_nobody_listens() {
    // Bound and not listening: the port is refused, and no other test can be given it.
    let quiet = tokio::net::TcpSocket::new_v4().unwrap();
    quiet.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let api_base = format!("http://{}", quiet.local_addr().unwrap());
    let options = Options { api_base, ..Script::start(Vec::new()).await.options("http") };
    let attempt = Client::new(&options).unwrap().attempt(&refund(), 0, always()).await;
    assert_eq!(attempt, Attempt::NotSent(Trouble::Connect));
}

#[tokio::test]
async fn nothing_was_sent_to_a_server_that_speaks_no_tls() {
    let script = Script::start(vec![reply(200, "", "{}")]).await;
    let sent = Client::new(&script.options("https")).unwrap().send(&refund(), &Sender::Gateway, None).await;
    assert_eq!(sent.attempts, [Attempt::NotSent(Trouble::Tls)]);
    assert!(!script.requests().await[0].contains("sk_test_scripted"));
}

#[tokio::test]
async fn a_path_that_climbs_is_not_sent() {
    let script = Script::start(Vec::new()).await;
    let outgoing = Outgoing { path: "/v1/refunds/..".to_owned(), ..refund() };
    let sent = script.client().send(&outgoing, &Sender::Gateway, None).await;
    assert_eq!(sent.attempts, [Attempt::NotSent(Trouble::Unsendable)]);
}

#[tokio::test]
async fn after_the_deadline_nothing_is_sent_at_all() {
    let script = Script::start(Vec::new()).await;
    let sent = script.client().send(&refund(), &Sender::Gateway, Some(Instant::now())).await;
    assert_eq!(sent.attempts, [Attempt::NotSent(Trouble::Deadline)]);
}

#[tokio::test]
async fn no_attempt_begins_whose_pause_would_pass_the_deadline() {
    let busy = Answer { status: 503, retry_after: Some(Duration::from_secs(30)), ..Answer::default() };
    let deadline = Instant::now() + Duration::from_secs(29);
    let sent =
        try_until(Some(deadline), |_| true, || true, async |_, _| Attempt::Answered(busy.clone())).await;
    assert_eq!(sent, [Attempt::Answered(busy)]);
}

#[tokio::test]
async fn an_attempt_that_has_begun_is_not_cut_off_by_the_deadline() {
    let mut room = Duration::from_millis(20);
    let sent = loop {
        let deadline = Instant::now() + room;
        let attempt = async |_, _| {
            tokio::time::sleep_until(deadline + Duration::from_millis(20)).await;
            Attempt::Answered(Answer { status: 200, ..Answer::default() })
        };
        let sent = try_until(Some(deadline), |_| true, || true, attempt).await;
        if sent != [Attempt::NotSent(Trouble::Deadline)] {
            break sent;
        }
        // Held up so long that it never began.
        room *= 2;
    };
    assert_eq!(sent, [Attempt::Answered(Answer { status: 200, ..Answer::default() })]);
}

#[test]
fn a_client_does_not_show_its_key() {
    let options = Options::new(Mode::Test, Key::parse("sk_test_visible".into()).unwrap());
    let client = Client::new(&options);
    assert!(!format!("{options:?} {client:?}").contains("visible"));
}

#[tokio::test]
async fn what_is_not_allowed_any_more_after_the_pause_is_not_sent_again() {
    let made = std::cell::Cell::new(0);
    let sent = try_until(
        None,
        |reached| reached == (made.get() > 0) && made.get() == 0,
        || true,
        async |_, _| {
            made.set(made.get() + 1);
            Attempt::Broken(Trouble::Reset)
        },
    )
    .await;
    assert_eq!(sent, [Attempt::Broken(Trouble::Reset), Attempt::NotSent(Trouble::Deadline)]);
    assert_eq!(made.get(), 1);
}

#[tokio::test]
async fn what_is_not_allowed_any_more_once_connected_is_not_sent_at_all() {
    let empty = Outgoing { body: Body::Form(String::new()), ..refund() };
    let delete = Outgoing { verb: Verb::Delete, body: Body::Empty, idempotency_key: None, ..refund() };
    for outgoing in [refund(), empty, delete] {
        let script = Script::start(vec![Reply::Silence]).await;
        let asked = AtomicU32::new(0);
        let once = move |_| asked.fetch_add(1, Ordering::SeqCst) == 0;
        let sent = script.client().send_while(&outgoing, &Sender::Gateway, None, once).await;
        assert_eq!(sent.attempts, [Attempt::NotSent(Trouble::Deadline)], "{:?}", outgoing.verb);
        assert_eq!((sent.requests(), script.requests().await.concat()), (0, String::new()));
    }
}

const KEY_REFUSED: &str =
    r#"{"error":{"type":"invalid_request_error","message":"Invalid API Key provided"}}"#;

fn keys(names: &[&str]) -> Vec<Key> {
    names.iter().map(|name| Key::parse(format!("sk_test_{name}").into()).unwrap()).collect()
}

#[tokio::test]
async fn an_attempt_goes_on_under_the_next_key_when_stripe_refuses_the_first() {
    let replies = vec![reply(401, "", KEY_REFUSED), reply(200, "", "{}"), reply(200, "", "{}")];
    let script = Script::start(replies).await;
    let client = Client::new(&Options { keys: keys(&["old", "new"]), ..script.options("http") }).unwrap();
    for _ in 0..2 {
        let sent = client.send(&refund(), &Sender::Gateway, None).await;
        assert_eq!(sent.attempts.len(), 1, "{sent:?}");
        assert_eq!(sent.answer().map(|answer| answer.status), Some(200));
    }
    let under: Vec<_> =
        script.requests().await.iter().map(|request| request.contains("sk_test_old")).collect();
    assert_eq!(under, [true, false, false], "the key that was taken is tried first from then on");
}

#[tokio::test]
async fn when_stripe_refuses_every_key_its_last_refusal_is_the_answer() {
    let script = Script::start(vec![reply(401, "", KEY_REFUSED), reply(401, "", KEY_REFUSED)]).await;
    let client = Client::new(&Options { keys: keys(&["a", "b"]), ..script.options("http") }).unwrap();
    let sent = client.send(&refund(), &Sender::Gateway, None).await;
    assert!(
        matches!(sent.attempts.as_slice(), [Attempt::Answered(answer)] if answer.status == 401),
        "{sent:?}"
    );
}

#[tokio::test]
async fn a_401_of_something_on_the_way_is_no_word_about_the_key() {
    let script = Script::start(vec![reply(401, "", "<html>who are you?</html>")]).await;
    let client = Client::new(&Options { keys: keys(&["a", "b"]), ..script.options("http") }).unwrap();
    let sent = client.send(&refund(), &Sender::Gateway, None).await;
    assert!(
        matches!(sent.attempts.as_slice(), [Attempt::Answered(answer)] if answer.status == 401),
        "{sent:?}"
    );
    assert_eq!(script.requests().await.len(), 1);
}

#[tokio::test]
async fn clones_take_new_keys_with_the_next_attempt() {
    let script = Script::start(vec![reply(200, "", "{}"), reply(200, "", "{}")]).await;
    let client = script.client();
    let clone = client.clone();
    let probe = client.with_keys(&keys(&["probed"])).unwrap();
    client.send(&refund(), &Sender::Gateway, None).await;
    clone.take_keys_of(&probe);
    client.send(&refund(), &Sender::Gateway, None).await;
    let under: Vec<_> =
        script.requests().await.iter().map(|request| request.contains("sk_test_probed")).collect();
    assert_eq!(under, [false, true]);
    assert!(client.with_keys(&[]).is_err());
}

/// Method: the server closes each connection after its answer without having said so, as one that was idle for long does.
#[tokio::test]
async fn a_connection_that_the_other_side_closed_while_it_was_idle_costs_no_call() {
    let silent_close = || Reply::Bytes(b"HTTP/1.1 200 x\r\ncontent-length: 2\r\n\r\n{}".to_vec());
    let script = Script::start((0..6).map(|_| silent_close()).collect()).await;
    let client = script.client();
    for _ in 0..6 {
        let sent = client.send(&refund(), &Sender::Gateway, None).await;
        assert_eq!(sent.answer().map(|answer| answer.status), Some(200), "{sent:?}");
    }
    let requests = script.requests().await;
    assert!(requests.iter().all(|request| *request == requests[0]), "under one key: {requests:?}");
}

#[tokio::test]
async fn a_host_that_does_not_answer_is_left_alone_and_then_tried_by_one_attempt() {
    let script = Script::start(vec![reply(200, "", "{}")]).await;
    let quiet = tokio::net::TcpSocket::new_v4().unwrap();
    quiet.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let files_base = format!("http://{}", quiet.local_addr().unwrap());
    let client = Client::new(&Options { files_base, ..script.options("http") }).unwrap();
    let upload = Outgoing {
        host: Host::Files,
        body: Body::Multipart { boundary: "limit".to_owned(), bytes: b"--limit--".as_slice().into() },
        ..refund()
    };
    for _ in 0..BREAKER_FAILURES_MAX {
        assert_eq!(client.send_once(&upload).await, Attempt::NotSent(Trouble::Connect));
    }
    let refused = client.send(&upload, &Sender::Gateway, None).await;
    assert!(
        matches!(refused.attempts.as_slice(), [Attempt::NotSent(Trouble::BreakerOpen { retry_ms })] if *retry_ms > 0),
        "{refused:?}"
    );
    assert_eq!(
        client.clone().send(&refund(), &Sender::Gateway, None).await.attempts.len(),
        1,
        "the other host has a breaker of its own"
    );
    tokio::time::sleep(Duration::from_millis(BREAKER_PAUSE_MS_MIN)).await;
    let (one, other) = tokio::join!(client.send_once(&upload), client.send_once(&upload));
    assert_eq!(one, Attempt::NotSent(Trouble::Connect));
    assert!(matches!(other, Attempt::NotSent(Trouble::BreakerOpen { .. })), "{other:?}");
}

#[tokio::test]
async fn without_a_resend_left_in_the_budget_the_first_attempt_is_the_last() {
    let script = Script::start(vec![reply(409, "", "{}")]).await;
    let client = script.client();
    while client.health.may_resend() {}
    let sent = client.send(&refund(), &Sender::Gateway, None).await;
    assert!(
        matches!(sent.attempts.as_slice(), [Attempt::Answered(answer)] if answer.status == 409),
        "{sent:?}"
    );
}
