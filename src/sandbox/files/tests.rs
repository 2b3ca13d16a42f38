//! Files as a client sees them.

use serde_json::json;

use crate::sandbox::tests::{Got, Stage};

const PDF: &[u8] = b"%PDF-1.7 \x00\xff\r\n--not the boundary\r\n";

impl Stage {
    async fn upload(&self, purpose: &str, name: &str, bytes: &[u8], key: Option<&str>) -> Got {
        let mut body = format!(
            "--XX\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\n{purpose}\r\n--XX\r\n\
             Content-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        )
        .into_bytes();
        body.extend(bytes);
        body.extend(b"\r\n--XX--\r\n");
        self.raw("POST", "/v1/files", "multipart/form-data; boundary=XX", body, key).await.unwrap()
    }
}

#[tokio::test]
async fn a_file_comes_back_byte_for_byte() {
    let stage = Stage::new().await;
    let made = stage.upload("dispute_evidence", "receipt.pdf", PDF, None).await;
    assert_eq!(made.status, 200, "{}", made.body);
    assert_eq!((made.text("/filename"), made.text("/type")), ("receipt.pdf", "pdf"));
    assert_eq!((made.text("/purpose"), &made.body["size"]), ("dispute_evidence", &json!(PDF.len())));
    assert_eq!(stage.get(&format!("/v1/files/{}", made.id())).await.body, made.body);
    let url = format!("http://{}/v1/files/{}/contents", stage.handle.address(), made.id());
    let contents = stage.client.get(url).bearer_auth("sk_test_sandbox").send().await.unwrap();
    assert_eq!(contents.headers()["content-type"], "application/pdf");
    assert_eq!(contents.bytes().await.unwrap().as_ref(), PDF);
    let list = stage.get("/v1/files?purpose=dispute_evidence").await;
    assert_eq!(list.body["data"], json!([made.body]));
    assert_eq!(stage.get("/v1/files?purpose=business_logo").await.body["data"], json!([]));
    assert_eq!(stage.get("/v1/files/file_none/contents").await.status, 404);
}

#[tokio::test]
async fn a_file_that_the_purpose_does_not_take_is_refused() {
    let stage = Stage::new().await;
    let large = [b"%PDF-".to_vec(), vec![0; 5_000_000]].concat();
    for (purpose, bytes, param) in [
        ("dispute_evidence", b"plain words".as_slice(), "file"),
        ("dispute_evidence", b"".as_slice(), "file"),
        ("dispute_evidence", large.as_slice(), "file"),
        ("sigma_scheduled_query", PDF, "purpose"),
    ] {
        let refused = stage.upload(purpose, "a.pdf", bytes, None).await;
        assert_eq!((refused.status, refused.text("/error/param")), (400, param), "{purpose}");
    }
    let form = stage.post("/v1/files", "purpose=dispute_evidence").await;
    assert_eq!((form.text("/error/code"), form.text("/error/param")), ("parameter_missing", "file"));
    let form = stage.post("/v1/files", "purpose=dispute_evidence&file=words").await;
    assert_eq!((form.status, form.text("/error/param")), (400, "file"));
}

#[tokio::test]
async fn the_bytes_are_part_of_what_a_key_stands_for() {
    let stage = Stage::new().await;
    let first = stage.upload("dispute_evidence", "a.pdf", PDF, Some("k")).await;
    let again = stage.upload("dispute_evidence", "a.pdf", PDF, Some("k")).await;
    assert_eq!(first.body, again.body);
    let other = stage.upload("dispute_evidence", "a.pdf", b"%PDF-other", Some("k")).await;
    assert_eq!((other.status, other.text("/error/type")), (400, "idempotency_error"));
}

#[tokio::test]
async fn evidence_takes_files_of_its_purpose_up_to_its_limit() {
    let stage = Stage::new().await;
    let form = "amount=6000&currency=usd&confirm=true&payment_method=pm_card_createDispute";
    stage.post("/v1/payment_intents", form).await;
    let dispute = stage.get("/v1/disputes").await.text("/data/0/id").to_owned();
    let path = format!("/v1/disputes/{dispute}");
    let logo = stage.upload("business_logo", "a.png", b"\x89PNG\r\n\x1a\n", None).await.id();
    let refused = stage.post(&path, &format!("submit=false&evidence[receipt]={logo}")).await;
    assert_eq!((refused.status, refused.text("/error/param")), (400, "evidence[receipt]"));
    let large = [b"%PDF-".to_vec(), vec![0; 2_500_000]].concat();
    let large = stage.upload("dispute_evidence", "a.pdf", &large, None).await.id();
    let form = format!("submit=false&evidence[receipt]={large}");
    let taken = stage.post(&path, &format!("{form}&expand[]=evidence.receipt")).await;
    assert_eq!(taken.text("/evidence/receipt/id"), large);
    let twice = stage.post(&path, &format!("{form}&evidence[refund_policy]={large}")).await;
    assert_eq!((twice.status, twice.text("/error/param")), (400, "evidence"), "one file twice counts twice");
}
