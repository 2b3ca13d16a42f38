//! What `tollgate dev` says when it is ready: where everything is, and commands that can be pasted.

use std::ffi::OsString;
use std::path::Path;

use super::{Dev, GRPC_PORT, SANDBOX_PORT, webhook_url};

/// The text.
pub(super) fn text(dev: &Dev, program: &OsString) -> String {
    let Some(seeds) = &dev.kept.seeds else { return String::new() };
    let program = pasteable(program);
    let address = if dev.gateway.grpc.port() == GRPC_PORT {
        String::new()
    } else {
        format!("TOLLGATE_ADDRESS={} ", dev.gateway.grpc)
    };
    let sandbox = if dev.sandbox.address().port() == SANDBOX_PORT {
        String::new()
    } else {
        format!(" --sandbox http://{}", dev.sandbox.address())
    };
    let tollgate = format!("{address}TOLLGATE_TOKEN={} {program}", dev.kept.token);
    let refund = format!(
        "{tollgate} refunds create --payment-intent {} --amount 500 --order-id order-1",
        seeds.payment_intent
    );
    format!(
        "\
tollgate dev is ready

  gRPC        {grpc}
  token       {token}
  webhooks    {hooks}
  operations  http://{ops}/metrics
  sandbox     http://{stripe}  (a simulated Stripe; key {key})

Paste into another terminal. Follow the events from the first one on (Ctrl-C ends it):
  {tollgate} events tail --from earliest

Refund 5.00 of the 20.00 USD payment; the same line again refunds nothing more and answers the same:
  {refund}

Look at it, at the customer and at the dispute:
  {tollgate} refunds list --payment-intent {payment_intent}
  {tollgate} call CustomerService/GetCustomer -d '{{\"id\": \"{customer}\"}}'
  {tollgate} call DisputeService/GetDispute -d '{{\"id\": \"{dispute}\"}}'

Make a refund fail at the bank, and see its event on the stream:
  {program} events trigger refund.failed{sandbox}

All methods; then whether the gateway serves:
  {program} call --list
  {tollgate} health

Ctrl-C here stops everything.",
        grpc = dev.gateway.grpc,
        token = dev.kept.token,
        hooks = webhook_url(&dev.gateway),
        ops = dev.gateway.ops,
        stripe = dev.sandbox.address(),
        key = dev.kept.stripe_key,
        payment_intent = seeds.payment_intent,
        customer = seeds.customer,
        dispute = seeds.dispute,
    )
}

/// The program as it was started, in a form that works from any folder.
fn pasteable(program: &OsString) -> String {
    let path = Path::new(program);
    let found = if path.components().count() > 1 { path.canonicalize().ok() } else { None };
    let text = found.as_deref().unwrap_or(path).display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_with_a_blank_in_its_path_is_quoted() {
        assert_eq!(pasteable(&"tollgate".into()), "tollgate");
        assert_eq!(pasteable(&"/nowhere/my folder/it's".into()), "'/nowhere/my folder/it'\\''s'");
    }
}
