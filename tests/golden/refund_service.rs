/// `RefundService.CreateRefund`.
#[derive(Debug)]
pub struct CreateRefund;

impl Method for CreateRefund {
    type Request = crate::proto::v1::CreateRefundRequest;
    type Response = crate::proto::v1::CreateRefundResponse;
    const SPEC: &'static Spec = &Spec { service: "RefundService", rpc: "CreateRefund", ledger_name: "refunds.create", verb: Verb::Post, path: "/v1/refunds", host: Host::Api, effect: Effect::Money, lookup: Some(Lookup { by: LookupBy::List("/v1/refunds"), filters: &["payment_intent", "charge", "created"], compare: &["amount", "currency"], reached: "" }), settled_by: &["refund.created"], turned_by: &["refund.updated", "refund.failed", "charge.refund.updated"], paging: Paging::None, object: "refund", fixed: &[], stamped: true, guards: &[Guard::OverRefund, Guard::OpenDispute], stages: Some(Stages { settled: &["requires_action"], terminal: &["succeeded", "failed", "canceled"] }), money: Some(Money { amount: "amount", currency: "currency", negative: false, reads: &[MoneyRead { by: "charge", get: "/v1/charges/{charge}", query: "", amount: "amount_captured", less: "amount_refunded", currency: "currency" }, MoneyRead { by: "payment_intent", get: "/v1/payment_intents/{payment_intent}", query: "expand[]=latest_charge", amount: "latest_charge.amount_captured", less: "latest_charge.amount_refunded", currency: "currency" }] }), id_prefixes: &[] };

    fn path(request: &Self::Request) -> String {
        let _ = request;
        fill(Self::SPEC.path, &[])
    }

    fn local(request: &Self::Request) -> Local<'_> {
        let _ = request;
        Local { operation: request.operation.as_ref(), account: &request.account, validate_only: request.validate_only, wait: crate::proto::v1::Wait::try_from(request.wait).unwrap_or_default(), ..Local::default() }
    }

    fn respond(reply: Reply<'_>) -> Result<Self::Response, Undecodable> {
        Ok(Self::Response { refund: reply.object()?, call: Some(reply.call.clone()), preview: reply.preview.clone() })
    }
}
/// `RefundService.GetRefund`.
#[derive(Debug)]
pub struct GetRefund;

impl Method for GetRefund {
    type Request = crate::proto::v1::GetRefundRequest;
    type Response = crate::proto::v1::GetRefundResponse;
    const SPEC: &'static Spec = &Spec { service: "RefundService", rpc: "GetRefund", ledger_name: "RefundService.GetRefund", verb: Verb::Get, path: "/v1/refunds/{id}", host: Host::Api, effect: Effect::Read, lookup: None, settled_by: &[], turned_by: &[], paging: Paging::None, object: "refund", fixed: &[], stamped: false, guards: &[], stages: None, money: None, id_prefixes: &["re_", "pyr_"] };

    fn path(request: &Self::Request) -> String {
        let _ = request;
        fill(Self::SPEC.path, &[("id", request.id.as_str())])
    }

    fn local(request: &Self::Request) -> Local<'_> {
        let _ = request;
        Local { account: &request.account, full: request.view == crate::proto::v1::View::Full as i32, ..Local::default() }
    }

    fn respond(reply: Reply<'_>) -> Result<Self::Response, Undecodable> {
        Ok(Self::Response { refund: reply.object()?, call: Some(reply.call.clone()), stripe_json: reply.stripe_json() })
    }
}
/// `RefundService.UpdateRefund`.
#[derive(Debug)]
pub struct UpdateRefund;

impl Method for UpdateRefund {
    type Request = crate::proto::v1::UpdateRefundRequest;
    type Response = crate::proto::v1::UpdateRefundResponse;
    const SPEC: &'static Spec = &Spec { service: "RefundService", rpc: "UpdateRefund", ledger_name: "refunds.update", verb: Verb::Post, path: "/v1/refunds/{id}", host: Host::Api, effect: Effect::Write, lookup: Some(Lookup { by: LookupBy::Retrieve("/v1/refunds/{id}"), filters: &[], compare: &["metadata"], reached: "" }), settled_by: &["refund.updated"], turned_by: &[], paging: Paging::None, object: "refund", fixed: &[], stamped: false, guards: &[], stages: None, money: None, id_prefixes: &[] };

    fn path(request: &Self::Request) -> String {
        let _ = request;
        fill(Self::SPEC.path, &[("id", request.id.as_str())])
    }

    fn local(request: &Self::Request) -> Local<'_> {
        let _ = request;
        Local { operation: request.operation.as_ref(), account: &request.account, validate_only: request.validate_only, ..Local::default() }
    }

    fn respond(reply: Reply<'_>) -> Result<Self::Response, Undecodable> {
        Ok(Self::Response { refund: reply.object()?, call: Some(reply.call.clone()), preview: reply.preview.clone() })
    }
}
/// `RefundService.CancelRefund`.
#[derive(Debug)]
pub struct CancelRefund;

impl Method for CancelRefund {
    type Request = crate::proto::v1::CancelRefundRequest;
    type Response = crate::proto::v1::CancelRefundResponse;
    const SPEC: &'static Spec = &Spec { service: "RefundService", rpc: "CancelRefund", ledger_name: "refunds.cancel", verb: Verb::Post, path: "/v1/refunds/{id}/cancel", host: Host::Api, effect: Effect::Money, lookup: Some(Lookup { by: LookupBy::Retrieve("/v1/refunds/{id}"), filters: &[], compare: &[], reached: "status=canceled" }), settled_by: &["refund.updated", "refund.failed"], turned_by: &[], paging: Paging::None, object: "refund", fixed: &[], stamped: false, guards: &[], stages: None, money: None, id_prefixes: &[] };

    fn path(request: &Self::Request) -> String {
        let _ = request;
        fill(Self::SPEC.path, &[("id", request.id.as_str())])
    }

    fn local(request: &Self::Request) -> Local<'_> {
        let _ = request;
        Local { operation: request.operation.as_ref(), account: &request.account, validate_only: request.validate_only, ..Local::default() }
    }

    fn respond(reply: Reply<'_>) -> Result<Self::Response, Undecodable> {
        Ok(Self::Response { refund: reply.object()?, call: Some(reply.call.clone()), preview: reply.preview.clone() })
    }
}
/// `RefundService.ListRefunds`.
#[derive(Debug)]
pub struct ListRefunds;

impl Method for ListRefunds {
    type Request = crate::proto::v1::ListRefundsRequest;
    type Response = crate::proto::v1::ListRefundsResponse;
    const SPEC: &'static Spec = &Spec { service: "RefundService", rpc: "ListRefunds", ledger_name: "RefundService.ListRefunds", verb: Verb::Get, path: "/v1/refunds", host: Host::Api, effect: Effect::Read, lookup: None, settled_by: &[], turned_by: &[], paging: Paging::List, object: "", fixed: &[], stamped: false, guards: &[], stages: None, money: None, id_prefixes: &[] };

    fn path(request: &Self::Request) -> String {
        let _ = request;
        fill(Self::SPEC.path, &[])
    }

    fn local(request: &Self::Request) -> Local<'_> {
        let _ = request;
        Local { account: &request.account, full: request.view == crate::proto::v1::View::Full as i32, page_size: request.page_size, page_token: &request.page_token, ..Local::default() }
    }

    fn respond(reply: Reply<'_>) -> Result<Self::Response, Undecodable> {
        Ok(Self::Response { refunds: reply.list()?, next_page_token: reply.next_page_token.clone(), call: Some(reply.call.clone()), stripe_json: reply.stripe_json() })
    }
}
