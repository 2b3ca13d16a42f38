//! The section `budgets`: who may move how much in which time. Whether a caller or an RPC of that name exists is not its
//! business.

use std::collections::BTreeSet;

use super::{Reader, parse_name};
use crate::config::{Budget, BudgetWindow};

/// Most callers, groups or RPCs that one budget names.
const NAMED_MAX: usize = 1_000;

impl Reader<'_> {
    /// Every budget, by name.
    pub(super) fn budgets(&mut self) -> Vec<Budget> {
        let set = self.values.keys().filter_map(|path| path.strip_prefix("budgets."));
        let names: BTreeSet<&str> = set.filter_map(|rest| rest.split('.').next()).collect();
        names.into_iter().filter_map(|name| self.budget(name)).collect()
    }

    fn budget(&mut self, name: &str) -> Option<Budget> {
        let path = |key: &str| format!("budgets.{name}.{key}");
        let named =
            parse_name(name).map_err(|what| self.faults.add(&format!("budgets.{name}"), what, "")).ok();
        let callers = self.optional(&path("callers"), |text| names(text, parse_name));
        let groups = self.optional(&path("groups"), |text| names(text, parse_name));
        let rpcs = self.optional(&path("rpcs"), |text| names(text, parse_rpc));
        let currency = self.required(&path("currency"), parse_currency);
        let window = self.required(&path("window"), parse_window);
        let amount = self.required(&path("amount"), parse_amount);
        Some(Budget {
            name: named?,
            callers: callers?.unwrap_or_default(),
            groups: groups?.unwrap_or_default(),
            rpcs: rpcs?.unwrap_or_default(),
            currency: currency?,
            window: window?,
            amount: amount?,
        })
    }
}

fn names(text: &str, parse: impl Fn(&str) -> Result<String, String>) -> Result<Vec<String>, String> {
    let names: Vec<String> = text.split(',').map(|name| parse(name.trim())).collect::<Result<_, _>>()?;
    if names.len() > NAMED_MAX {
        return Err(format!("names {}, the most is {NAMED_MAX}", names.len()));
    }
    Ok(names)
}

fn parse_rpc(text: &str) -> Result<String, String> {
    let word = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric());
    match text.split_once('.') {
        Some((service, rpc)) if word(service) && word(rpc) => Ok(text.to_owned()),
        _ => Err(format!("`{text}` is not an RPC like `RefundService.CreateRefund`")),
    }
}

/// As Stripe writes it (docs.stripe.com/currencies).
fn parse_currency(text: &str) -> Result<String, String> {
    if text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_lowercase()) {
        Ok(text.to_owned())
    } else {
        Err(format!("`{text}` is not a currency of three lower-case letters, such as `eur`"))
    }
}

fn parse_window(text: &str) -> Result<BudgetWindow, String> {
    match text {
        "rolling_day" => Ok(BudgetWindow::RollingDay),
        "calendar_month" => Ok(BudgetWindow::CalendarMonth),
        "order" => Ok(BudgetWindow::Order),
        _ => Err(format!("`{text}` is none of `rolling_day`, `calendar_month`, `order`")),
    }
}

fn parse_amount(text: &str) -> Result<i64, String> {
    match text.parse() {
        Ok(amount @ 0..) => Ok(amount),
        _ => Err(format!("`{text}` is not an amount: a whole number in the currency's smallest unit")),
    }
}
