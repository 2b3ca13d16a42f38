//! Finds records by what they say: along the index where an id or a parameter leads there, else record by record.

use prost::Message as _;

use super::{Gateway, message, named, unread, visible};
use crate::audit::{Phase, Record, Shown};
use crate::contract::page::{BadToken, Binding};
use crate::contract::{Params, Sensitivity, Violation, Violations};
use crate::domain::clock::UnixMillis;
use crate::domain::limits::{
    AUDIT_PAGE_SEARCHED_MAX, AUDIT_READ_BYTES_MAX, AUDIT_READ_RECORDS, PAGE_ITEMS_DEFAULT, PAGE_ITEMS_MAX,
};
use crate::gateway::context::Context;
use crate::gateway::fault::Fault;
use crate::proto::v1::{
    AuditParameterFilter, AuditPhase, SearchAuditRecordsRequest, SearchAuditRecordsResponse, TimeRange,
};
use crate::store::StoredAudit;

const SEARCH: &str = "tollgate.v1.AuditService/SearchAuditRecords";

/// A question in the log's own terms.
struct Question<'a> {
    request: &'a SearchAuditRecordsRequest,
    /// A name that must lead to a record; without one, every record is looked at.
    term: Option<&'a str>,
    /// Hashes that the parameter's value has under the keys there are.
    hashes: Vec<String>,
}

impl Gateway {
    /// Finds records.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for a faulty question, UNAVAILABLE when the store cannot be read.
    pub async fn search_audit(
        &self,
        context: &Context,
        request: &SearchAuditRecordsRequest,
    ) -> Result<SearchAuditRecordsResponse, Fault> {
        let (found, call) =
            self.read_own(context, (SEARCH, None), asked(request), self.find(context, request)).await?;
        Ok(SearchAuditRecordsResponse { call: Some(call), ..found })
    }

    async fn find(
        &self,
        context: &Context,
        request: &SearchAuditRecordsRequest,
    ) -> Result<SearchAuditRecordsResponse, Fault> {
        let mut violations = Violations::of(request).into_vec();
        let filters =
            SearchAuditRecordsRequest { page_size: 0, page_token: String::new(), ..request.clone() };
        let binding = Binding::new(SEARCH, &filters.encode_to_vec());
        let token = request.page_token.as_str();
        let after = binding.open(token).ok().and_then(|place| place.parse().ok());
        if after.is_none() && !token.is_empty() {
            violations.push(Violation { field: "page_token".to_owned(), description: BadToken.to_string() });
        }
        if !violations.is_empty() {
            return Err(Fault::invalid(violations));
        }
        let size =
            if request.page_size == 0 { PAGE_ITEMS_DEFAULT } else { request.page_size.min(PAGE_ITEMS_MAX) };
        let size = usize::try_from(size).unwrap_or_default();
        let question = self.audit_question(request);
        let sight = self.sight(&context.caller);
        let mut after = after.unwrap_or_default();
        let (mut records, mut searched) = (Vec::new(), 0);
        while searched < AUDIT_PAGE_SEARCHED_MAX {
            let rows = self.candidates(&question, after).await?;
            if rows.is_empty() {
                return Ok(SearchAuditRecordsResponse { records, ..Default::default() });
            }
            for stored in rows {
                searched += 1;
                after = stored.sequence;
                let seen = visible(&sight, &stored).filter(|record| question.fits(record));
                records.extend(seen.map(|record| message::record(&stored, &record)));
                if records.len() >= size {
                    break;
                }
            }
            if records.len() >= size {
                break;
            }
        }
        let next_page_token = binding.seal(&after.to_string());
        Ok(SearchAuditRecordsResponse { records, next_page_token, call: None })
    }

    fn audit_question<'a>(&self, request: &'a SearchAuditRecordsRequest) -> Question<'a> {
        let hashes = match &request.parameter {
            Some(AuditParameterFilter { name, value }) => self.auditor.hashes(name, value),
            None => Vec::new(),
        };
        let mut names = [&request.id, &request.order_id].into_iter().map(String::as_str);
        Question { request, term: names.find(|name| !name.is_empty()), hashes }
    }

    /// The next records that may fit, in the log's order.
    async fn candidates(&self, question: &Question<'_>, after: u64) -> Result<Vec<StoredAudit>, Fault> {
        let rows = match question.term {
            Some(term) => self.store.audit_with(term, after, AUDIT_READ_RECORDS, AUDIT_READ_BYTES_MAX).await,
            None => self.store.audit_after(after, AUDIT_READ_RECORDS).await,
        };
        rows.map_err(|error| unread(&error))
    }
}

impl Question<'_> {
    fn fits(&self, record: &Record) -> bool {
        let request = self.request;
        let is = |wanted: &str, found: &str| wanted.is_empty() || wanted == found;
        let may = |wanted: &str, found: &Option<String>| is(wanted, found.as_deref().unwrap_or_default());
        let outcome = record.outcome.clone().unwrap_or_default();
        let wanted = request.rpc.trim_start_matches("tollgate.v1.");
        is(&request.caller, &record.caller)
            && may(&request.actor, &record.actor)
            && may(&request.order_id, &record.order_id)
            && is(wanted, record.rpc.trim_start_matches("tollgate.v1."))
            && may(&request.peer, &record.peer)
            && (is(&request.result, &outcome.result) || may(&request.result, &outcome.reason))
            && has_phase(request.phase(), record.phase)
            && within(request.time.as_ref(), record.at_ms)
            && request.parameter.as_ref().is_none_or(|parameter| self.has(parameter, record))
    }

    fn has(&self, wanted: &AuditParameterFilter, record: &Record) -> bool {
        record.params.iter().filter(|param| param.name == wanted.name).any(|param| match &param.shown {
            Shown::Value(value) => *value == wanted.value,
            Shown::Hash(hash) => self.hashes.contains(hash),
            Shown::Withheld => false,
        })
    }
}

fn has_phase(wanted: AuditPhase, found: Phase) -> bool {
    wanted == AuditPhase::Unspecified || wanted == message::phase(found)
}

fn within(range: Option<&TimeRange>, at_ms: UnixMillis) -> bool {
    let Some(range) = range else { return true };
    let at = (at_ms.div_euclid(1000), at_ms.rem_euclid(1000) * 1_000_000);
    let bound =
        |bound: Option<&prost_types::Timestamp>| bound.map(|bound| (bound.seconds, i64::from(bound.nanos)));
    bound(range.gt.as_ref()).is_none_or(|bound| at > bound)
        && bound(range.gte.as_ref()).is_none_or(|bound| at >= bound)
        && bound(range.lt.as_ref()).is_none_or(|bound| at < bound)
        && bound(range.lte.as_ref()).is_none_or(|bound| at <= bound)
}

/// The question as its own record shows it.
fn asked(request: &SearchAuditRecordsRequest) -> Params {
    let phase = request.phase().as_str_name();
    let phase = if request.phase() == AuditPhase::Unspecified { "" } else { phase };
    let mut params = named(&[
        ("id", &request.id),
        ("caller", &request.caller),
        ("actor", &request.actor),
        ("order_id", &request.order_id),
        ("rpc", &request.rpc),
        ("phase", phase),
        ("result", &request.result),
        ("peer", &request.peer),
    ]);
    if let Some(parameter) = &request.parameter {
        params.push(
            format!("parameter[{}]", parameter.name),
            parameter.value.as_str(),
            Sensitivity::Personal,
        );
    }
    params
}
