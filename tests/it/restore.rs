//! A data folder that comes back from an older copy: what it remembers is answered, and nothing that it may have
//! forgotten is paid again.

use std::path::Path;

use tempfile::TempDir;
use tollgate::proto::v1::refund_service_client::RefundServiceClient;
use tollgate::proto::v1::{CreateRefundRequest, CreateRefundResponse};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::rig::{Rig, operation};

const CHECKPOINTS: &str = "audit-checkpoints";

async fn refund(rig: &Rig, payment: &str, operation_id: &str) -> Result<CreateRefundResponse, Status> {
    let request = CreateRefundRequest {
        operation: operation("1001", operation_id),
        payment_intent: Some(payment.to_owned()),
        amount: Some(100),
        ..Default::default()
    };
    RefundServiceClient::new(rig.wire()).create_refund(request).await.map(tonic::Response::into_inner)
}

async fn is_refused(rig: &Rig, payment: &str, operation_id: &str) {
    let status = refund(rig, payment, operation_id).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
    assert_eq!(status.get_details_error_info().unwrap().reason, "DATA_ROLLED_BACK");
    assert_eq!(status.metadata().get("grpc-retry-pushback-ms").unwrap(), "-1");
}

/// Puts the database, and nothing else, in place of the one in `to`.
fn copy_database(from: &Path, to: &Path) {
    let files = |folder: &Path| {
        let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name());
        files.filter(|name| name.to_str().unwrap().starts_with("tollgate.db")).collect::<Vec<_>>()
    };
    for name in files(to) {
        std::fs::remove_file(to.join(name)).unwrap();
    }
    for name in files(from) {
        std::fs::copy(from.join(&name), to.join(&name)).unwrap();
    }
}

#[tokio::test]
async fn a_restored_gateway_moves_no_money_until_an_operator_has_acknowledged_it() {
    let rig = Rig::start().await;
    let payment = rig.payment(1000).await;
    refund(&rig, &payment, "before").await.unwrap();
    let copy = TempDir::new().unwrap();
    let rig = rig.restart_after(|data| copy_database(data, copy.path())).await;
    refund(&rig, &payment, "after").await.unwrap();
    let rig = rig.restart_after(|data| copy_database(copy.path(), data)).await;

    assert!(refund(&rig, &payment, "before").await.unwrap().call.unwrap().replayed);
    is_refused(&rig, &payment, "after").await;
    is_refused(&rig, &payment, "new").await;
    let rig = rig.restart().await;
    is_refused(&rig, &payment, "new").await;
    assert_eq!(rig.refunds_made(), 2);

    let acknowledge =
        |data: &Path| std::fs::rename(data.join(CHECKPOINTS), data.join("old-checkpoints")).unwrap();
    let rig = rig.restart_after(acknowledge).await;
    refund(&rig, &payment, "new").await.unwrap();
    assert_eq!(rig.refunds_made(), 3);
    let rig = rig.restart().await;
    assert!(refund(&rig, &payment, "new").await.unwrap().call.unwrap().replayed);
    assert_eq!(rig.refunds_made(), 3);
}
