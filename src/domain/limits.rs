//! Every limit of the product, by name and unit.

/// Longest order id or operation id, in characters.
pub const ORDER_ID_CHARS_MAX: usize = 200;
/// Longest Stripe object id, in characters (docs.stripe.com/upgrades: ids may grow up to 255).
pub const STRIPE_ID_CHARS_MAX: usize = 255;
/// Metadata keys of a caller: Stripe allows 50 and the gateway needs one.
pub const METADATA_KEYS_MAX: usize = 49;
/// Longest metadata key, in characters (docs.stripe.com/api/metadata).
pub const METADATA_KEY_CHARS_MAX: usize = 40;
/// Longest metadata value, in characters (docs.stripe.com/api/metadata).
pub const METADATA_VALUE_CHARS_MAX: usize = 500;
/// What begins the metadata keys that belong to the gateway.
pub const METADATA_RESERVED_PREFIX: &str = "tollgate_";
/// The metadata key that carries the operation's stamp.
pub const METADATA_STAMP: &str = "tollgate_operation";
/// Violations reported for one request; what is beyond it adds nothing.
pub const VIOLATIONS_MAX: usize = 50;
/// Items on a page when the caller names no number.
pub const PAGE_ITEMS_DEFAULT: i32 = 10;
/// Most items on a page (docs.stripe.com/api/pagination).
pub const PAGE_ITEMS_MAX: i32 = 100;
/// Largest answer of Stripe that is read, in bytes; a page of 100 fully expanded objects stays well below it.
pub const STRIPE_ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Longest message of a Stripe error that is passed on, in characters: it travels in a gRPC trailer.
pub const STRIPE_MESSAGE_CHARS_MAX: usize = 1000;
/// Most attempts of one call, the first included (gRFC A6 caps gRPC's own retries at the same number).
pub const STRIPE_ATTEMPTS_MAX: u32 = 5;
/// Shortest pause between two attempts, in milliseconds, as in Stripe's own libraries.
pub const STRIPE_RETRY_MS_MIN: u64 = 500;
/// Longest pause that the gateway chooses by itself, in milliseconds, as in Stripe's own libraries.
pub const STRIPE_RETRY_MS_MAX: u64 = 5_000;
/// Longest `Retry-After` that is waited for, in seconds; a longer one goes to the caller instead.
pub const STRIPE_RETRY_AFTER_S_MAX: u64 = 60;
/// Most resends in per cent of the calls that are sent for the first time, so that a Stripe in trouble is not buried.
pub const RETRY_BUDGET_PERCENT: u32 = 20;
/// Resends of one account that may follow at once, beyond those that calls have just paid for.
pub const RETRY_BUDGET_RESENDS_MAX: u32 = 10;
/// Failures of a host of Stripe's, one after the other and no answer between, after which it is left alone for a while.
pub const BREAKER_FAILURES_MAX: u32 = 10;
/// How long it is first left alone, in milliseconds; each try that fails doubles it.
pub const BREAKER_PAUSE_MS_MIN: u64 = 500;
/// How long it is left alone at most, in milliseconds.
pub const BREAKER_PAUSE_MS_MAX: u64 = 10_000;
/// How long one attempt may take, in milliseconds, as in Stripe's own libraries.
pub const STRIPE_ATTEMPT_MS_MAX: u64 = 80_000;
/// How long a connection to Stripe may take to stand, TLS included, in milliseconds.
pub const STRIPE_CONNECT_MS_MAX: u64 = 10_000;
/// How long an unused connection to Stripe is kept, in milliseconds.
pub const STRIPE_IDLE_MS_MAX: u64 = 50_000;
/// Most unused connections kept for each of Stripe's hosts.
pub const STRIPE_IDLE_CONNECTIONS_MAX: usize = 64;
/// How long Stripe may be silent about an attempt, in milliseconds, before one that is given up counts as a failure of its.
pub const STRIPE_SILENCE_MS_MAX: u64 = 10_000;
/// Longest API key, in characters.
pub const STRIPE_KEY_CHARS_MAX: usize = 255;
/// Longest `Stripe-Signature` header, in bytes.
pub const SIGNATURE_HEADER_BYTES_MAX: usize = 4096;
/// Most `v1` signatures in one header; Stripe sends one for each active secret of the endpoint.
pub const SIGNATURES_MAX: usize = 16;
/// How far a webhook's signing time may lie from now, on either side, in seconds (docs.stripe.com/webhooks).
pub const SIGNATURE_AGE_S_MAX: i64 = 300;
/// Longest event type, in characters; Stripe's longest of today has 71.
pub const EVENT_TYPE_CHARS_MAX: usize = 100;
/// Most type patterns in one filter.
pub const EVENT_PATTERNS_MAX: usize = 100;
/// How long after its first send a change whose outcome is unknown may be sent again, in milliseconds: 23 hours, an hour
/// before Stripe may forget its idempotency key (docs.stripe.com/api/idempotent_requests).
pub const RESEND_MS_MAX: i64 = 23 * 3_600_000;
/// How far the wall clock may lie behind the last entry of an operation before its age counts as not known, in
/// milliseconds.
pub const CLOCK_BEHIND_MS_MAX: i64 = 60_000;
/// How far the wall clock and Stripe's may differ at a start before the wall clock counts as wrong, in milliseconds.
pub const CLOCK_DIFFERENCE_MS_MAX: u64 = 60_000;
/// How long after its intent was stored a change may be sent, in milliseconds. A process that was stopped for longer
/// has lost its right to send.
pub const SEND_LEASE_MS: i64 = 5 * 60_000;
/// How long after its first send an unknown outcome is looked for, in milliseconds; then a person has to decide.
pub const UNKNOWN_MS_MAX: i64 = 7 * 24 * 3_600_000;
/// How long Stripe's answers are kept, which hold personal data, in milliseconds; the outcome itself is kept for good.
pub const RESPONSE_KEPT_MS: i64 = 30 * 24 * 3_600_000;
/// Requests a second that Stripe takes of an account in live mode (docs.stripe.com/rate-limits).
pub const STRIPE_LIVE_REQUESTS_PER_S: u32 = 100;
/// The same in test mode.
pub const STRIPE_TEST_REQUESTS_PER_S: u32 = 25;
/// Requests a second that it takes at one endpoint.
pub const STRIPE_ENDPOINT_REQUESTS_PER_S: u32 = 25;
/// Requests of one account under way at Stripe at once, unless configured otherwise; Stripe has such a limit and names no
/// number.
pub const STRIPE_AT_ONCE_MAX: u32 = 100;
/// Keys that are asked for their account at once, at a start and when settings are taken.
pub const KEYS_ASKED_AT_ONCE_MAX: usize = 16;
/// Requests of all callers that wait for their turn at one account.
pub const STRIPE_QUEUED_MAX: usize = 1_000;
/// How many of these places are kept for changes of refunds and disputes.
pub const STRIPE_QUEUED_RESERVED: usize = STRIPE_QUEUED_MAX / 5;
/// The same of one caller, for each class of urgency.
pub const STRIPE_QUEUED_PER_CALLER_MAX: usize = 250;
/// Longest wait for a turn, in milliseconds; what would wait longer is refused at once.
pub const STRIPE_QUEUE_MS_MAX: u64 = 10_000;
/// Unresolved operations that are read at once.
pub const LEDGER_PAGE_OPERATIONS: usize = 256;
/// Audit records that are read at once when a later change of an object is looked for.
pub const SUPERSEDED_PAGE_RECORDS: usize = 256;
/// Most callers that wait for one change in flight.
pub const FLIGHT_FOLLOWERS_MAX: usize = 100;
/// Longest wait for a change in flight when the caller sets no deadline, in milliseconds: one attempt and its pause.
pub const FLIGHT_WAIT_MS_MAX: u64 = STRIPE_ATTEMPT_MS_MAX + STRIPE_RETRY_MS_MAX;
/// Longest wait of a caller for what comes of a change that took effect, in milliseconds.
pub const WAIT_MS_MAX: u64 = 60_000;
/// How long before the caller's deadline a wait ends, in milliseconds, so that the answer still arrives.
pub const WAIT_ANSWER_MS: u64 = 250;
/// Changes that are under way at once, those included whose callers have gone; a further one is refused.
pub const CHANGES_AT_ONCE_MAX: u32 = 1_024;
/// Calls of the contract that are under way at once, unless configured otherwise; a further one is refused at the door.
pub const CALLS_IN_FLIGHT_MAX: usize = 1_024;
/// Calls that a gateway lets in however far behind it is, unless fewer are configured.
pub const CALLS_IN_FLIGHT_MIN: usize = 256;
/// Calls that each caller may have under way whatever the others do.
pub const CALLS_PER_CALLER_MIN: usize = 4;
/// Calls that a caller may have under way for each place that is free.
pub const CALLS_PER_FREE_PLACE: usize = 4;
/// How late the gateway may get to work that is ready before it takes fewer calls, in milliseconds.
pub const LAG_MS_MAX: u64 = 25;
/// How often that is measured, in milliseconds.
pub const LAG_TICK_MS: u64 = 20;
/// Measurements of which the least counts: only what stands in all of them is a queue, and the rest a burst.
pub const LAG_TICKS: usize = 5;
/// Freezes that stand at once; every change is held against all of them.
pub const FREEZES_MAX: usize = 1_000;
/// Calls that wait at once for what comes of a change; a further one is answered at once.
pub const WAITS_AT_ONCE_MAX: usize = 256;
/// Events about one payment that a guard looks at; a payment has a few.
pub const GUARD_EVENTS_MAX: usize = 1_000;
/// Names of calls, two for each, under which what caused an event is found without the disk.
pub const CALLS_REMEMBERED_MAX: usize = 16_384;
/// Audit records of one operation that are read to find who made an object.
pub const CAUSE_RECORDS_MAX: usize = 16;
/// Memory for the newest events, which all readers share, in bytes; unless configured otherwise.
pub const EVENT_MEMORY_BYTES: usize = 64 << 20;
/// Events that one step of a reader reads ahead.
pub const EVENT_BATCH_EVENTS_MAX: usize = 256;
/// Bytes of JSON that one step of a reader reads ahead, beyond the first event.
pub const EVENT_BATCH_BYTES_MAX: usize = 1 << 20;
/// Bytes of JSON that a stream reads ahead for its caller, beyond the first event: what a stalled one holds on to.
pub const STREAM_AHEAD_BYTES_MAX: usize = 64 << 10;
/// Shortest time between two words to streams that the log has grown, in milliseconds. Under load a stream then wakes up
/// for several events at once and they share a write; an event after a pause waits for nothing.
pub const EVENT_HEAD_EVERY_MS: u64 = 2;
/// Most types that one question for Stripe's list of events may name (docs.stripe.com/api/events/list).
pub const EVENTS_TYPES_MAX: usize = 20;
/// Bytes of events that a sweep of Stripe's list holds at once; a span of time with more is divided.
pub const SWEEP_BYTES_MAX: usize = 32 << 20;
/// Pages of Stripe's list that a sweep reads for one span of time; one with more is divided.
pub const SWEEP_PART_PAGES_MAX: usize = 100;
/// Spans of the largest size for which the reads of a day are enough: three days are halved eighteen times down to the second
/// that is never divided, so some of them is read every day however its events are spread.
pub const SWEEP_PARTS_PER_DAY_MIN: usize = 20;
/// Pause between two reads of a sweep, in milliseconds: it takes at most a tenth of what Stripe lets through in test mode
/// (docs.stripe.com/rate-limits).
pub const SWEEP_READ_PAUSE_MS: u64 = 400;
/// How often a read of a sweep steps back behind the changes of callers before it is made all the same.
pub const SWEEP_YIELDS_MAX: u32 = 20;
/// How long the thin events of one object are gathered before it is fetched, in milliseconds.
pub const THIN_GATHER_MS: u64 = 200;
/// How many days before a dispute has to be answered that is told as an event.
pub const DISPUTE_REMINDER_DAYS: [i64; 3] = [7, 3, 1];
/// How long a dispute is remembered after its deadline, in seconds, since its events may come late.
pub const DISPUTE_FORGOTTEN_S: i64 = 35 * 24 * 3_600;
/// Connected accounts of one alias that are swept, those that sent an event first.
pub const CONNECTED_ACCOUNTS_MAX: usize = 100;
/// Bytes of JSON on one page of events, beyond the first event; gRPC clients refuse answers over 4 MiB by default.
pub const EVENT_PAGE_BYTES_MAX: usize = 2 << 20;
/// Events that are looked at for one page, whether they match or not.
pub const EVENT_PAGE_SEARCHED_MAX: usize = 10_000;
/// Named subscriptions of one namespace.
pub const SUBSCRIPTIONS_PER_NAMESPACE_MAX: usize = 100;
/// Longest name of a subscription, in characters.
pub const SUBSCRIPTION_NAME_CHARS_MAX: usize = 64;
/// Events of one subscription that were looked at and have still to be dealt with, parked ones apart. Its kept state and
/// its memory grow with them.
pub const SUBSCRIPTION_OPEN_EVENTS_MAX: usize = 2_000;
/// Parked events of one subscription.
pub const SUBSCRIPTION_PARKED_MAX: usize = 1_000;
/// Longest time that a consumer may put an event off, in milliseconds.
pub const SUBSCRIPTION_RETRY_MS_MAX: i64 = 3_600_000;
/// How long an event waits that should be parked and finds no room, in milliseconds.
pub const SUBSCRIPTION_UNPARKABLE_RETRY_MS: i64 = 600_000;
/// How often subscriptions are looked after whose consumers do not, in milliseconds: leases that ended, progress that was
/// not kept yet, and what the metrics show.
pub const SUBSCRIPTIONS_TICK_MS: u64 = 1_000;
/// How long a consumer has for an event by default, in milliseconds.
pub const SUBSCRIPTION_LEASE_MS_DEFAULT: i64 = 30_000;
/// Events of one subscription that are out at once, by default.
pub const SUBSCRIPTION_IN_FLIGHT_DEFAULT: usize = 100;
/// Bytes of JSON of one subscription that are out at once, by default.
pub const SUBSCRIPTION_IN_FLIGHT_BYTES_DEFAULT: usize = 4 << 20;
/// Deliveries of one event before it is parked, by default.
pub const SUBSCRIPTION_ATTEMPTS_DEFAULT: u32 = 10;
/// Subscriptions that metrics show one by one.
pub const SUBSCRIPTIONS_SHOWN_MAX: usize = 200;
/// Messages that a stream holds ready for a caller who is slow to take them.
pub const STREAM_AHEAD_ITEMS_MAX: usize = 4;
/// Largest webhook body, in bytes; Stripe's events have some 10 KB.
pub const WEBHOOK_BODY_BYTES_MAX: usize = 1 << 20;
/// How long a webhook's body may take to arrive, in milliseconds.
pub const WEBHOOK_BODY_MS_MAX: u64 = 10_000;
/// Webhook deliveries that are received at once; bounds the memory that strangers can occupy.
pub const WEBHOOKS_AT_ONCE_MAX: usize = 256;
/// Largest request message, in bytes: the 150,000 characters of a dispute's evidence fit in any script; an upload sends
/// its file in many messages.
pub const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// Largest response message, in bytes.
pub const RESPONSE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Open connections on each port, unless configured otherwise.
pub const CONNECTIONS_MAX: usize = 1_000;
/// The same from one address.
pub const CONNECTIONS_PER_ADDRESS_MAX: usize = 256;
/// Streams that one connection may have open (RUSTSEC-2024-0003 is what happens without).
pub const STREAMS_PER_CONNECTION_MAX: u32 = 100;
/// Resets for malformed frames before a connection is cut.
pub const LOCAL_ERROR_RESETS_MAX: usize = 1_024;
/// Streams that a peer may reset before they were looked at, before its connection is cut (CVE-2023-44487).
pub const PENDING_RESETS_MAX: usize = 20;
/// Control frames that a peer may send at once, such as pings and settings.
pub const CONTROL_FRAMES_AHEAD_MAX: u64 = 1_000;
/// Control frames that a peer may send for good, in each second.
pub const CONTROL_FRAMES_PER_SECOND: u64 = 100;
/// For so many bytes that it is sent a peer may send one control frame more: whoever receives much acknowledges much. An
/// answer to a ping has 17 bytes, so a flood of them does not pay for itself.
pub const BYTES_PER_CONTROL_FRAME: u64 = 50;
/// The settings that a connection begins with, in bytes; a setting has 6, and RFC 9113 knows 6 of them.
pub const OPENING_SETTINGS_BYTES_MAX: usize = 1024;
/// Bytes that wait to be sent on one stream.
pub const SEND_BUFFER_BYTES_MAX: usize = 512 * 1024;
/// How long a connection may take until its TLS stands and its first words were said, in milliseconds. For HTTP/1.1
/// also how long the headers of a request may take.
pub const OPENING_MS_MAX: u64 = 10_000;
/// How long a connection of gRPC takes new calls, in milliseconds, and a tenth more or less: callers spread anew over
/// gateways, and present their certificates anew.
pub const CONNECTION_AGE_MS_MAX: u64 = 15 * 60_000;
/// How long a connection past its age may stay on which no call of the contract is open, in milliseconds: long enough
/// for its end to be told, and no home for whoever only watches.
pub const LINGERING_MS_MAX: u64 = 5 * 60_000;
/// How long a connection may take to leave whose place another needs, in milliseconds.
pub const LEAVING_MS_MAX: u64 = 1_000;
/// How long a connection without an open call may stay once the gateway goes, in milliseconds: long enough for its last
/// answers to arrive, and nobody waits for those who only watch or do not hear.
pub const ENDING_MS_MAX: u64 = 5_000;
/// How long connections that are half way get to stand when the gateway goes and takes no new ones, in milliseconds: a round
/// trip to any caller within a region, and what is lost on top of it comes late.
pub const HANDSHAKE_MS_MAX: u64 = 100;
/// How long the messages of a request may take to arrive, in milliseconds; an upload, the longest, has its own limit.
pub const REQUEST_MS_MAX: u64 = UPLOAD_MS_MAX + 5_000;
/// Largest request to health and reflection, in bytes; nobody needs to be known to send one.
pub const STRANGER_MESSAGE_BYTES_MAX: usize = 4 * 1024;
/// Size of a request's headers, in bytes.
pub const HEADER_LIST_BYTES_MAX: u32 = 16 * 1024;
/// Largest file for dispute evidence, in bytes (docs.stripe.com/disputes/responding).
pub const DISPUTE_EVIDENCE_BYTES_MAX: usize = 5 * 1024 * 1024;
/// Largest file for any other purpose, in bytes; Stripe's own limits per purpose are smaller.
pub const UPLOAD_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How long an HTTP/2 connection may be silent before it is asked for a sign of life, in milliseconds.
pub const SILENCE_MS_MAX: u64 = 30_000;
/// How long that sign may take, in milliseconds: a peer that vanished is noticed within both together.
pub const SIGN_OF_LIFE_MS_MAX: u64 = 10_000;
/// How far the order of the log and the times of receipt may disagree, in milliseconds.
pub const EVENT_DISORDER_MS_MAX: i64 = 60_000;
/// Days for which a second delivery of an event is known as such at least, whether the event is still kept or not: more
/// than Stripe lists events for (docs.stripe.com/api/events), so that no reading of its list can bring one back.
pub const EVENT_MARK_DAYS_MIN: u32 = 35;
/// Uploads that may be under way at once; each may hold a whole file in memory.
pub const UPLOADS_AT_ONCE_MAX: usize = 32;
/// How long the header of an upload may take to come, in milliseconds.
pub const UPLOAD_HEADER_MS_MAX: u64 = 10_000;
/// How long the bytes of an upload may take to come, in milliseconds.
pub const UPLOAD_MS_MAX: u64 = 120_000;
/// Longest text about for whom a caller acts, in characters; what is beyond it is left out.
pub const ACTOR_CHARS_MAX: usize = 200;
/// Audit records that one signed checkpoint adds, at most.
pub const CHECKPOINT_RECORDS_MAX: u64 = 256;
/// Newest checkpoints that are kept at hand to be listed.
pub const CHECKPOINTS_LISTED_MAX: usize = 100;
/// How much earlier than the intent an object with the operation's stamp may have been created, in seconds: the two
/// clocks may differ.
pub const LOOKUP_CLOCK_S_MAX: i64 = 3_600;
/// The same for an object that carries no stamp, where time is part of the proof.
pub const LOOKUP_UNSTAMPED_CLOCK_S_MAX: i64 = 60;
/// Pages of a list that one look-up reads, of [`PAGE_ITEMS_MAX`] objects each.
pub const LOOKUP_PAGES_MAX: usize = 20;
/// Objects that a look-up shows to an operator.
pub const FOUND_OBJECTS_MAX: usize = 50;
/// Longest that one look-up of a background task may take, in milliseconds.
pub const LOOKUP_MS_MAX: u64 = 60_000;
/// Reads that the background task makes in a minute; Stripe allows far more, and counts them against the account
/// (docs.stripe.com/rate-limits). A look-up that has begun is finished.
pub const LOOKUPS_READS_PER_MINUTE_MAX: u32 = 120;
/// How often the background task sees whether a look-up is due, in milliseconds.
pub const RESOLVER_TICK_MS: u64 = 1_000;
/// How often the ledger's clock is watched and old entries are pruned, in milliseconds.
pub const HOUSEKEEPING_MS: i64 = 60_000;
/// Entries that one round of pruning looks at.
pub const PRUNED_AT_ONCE_MAX: usize = 10_000;
/// Entries that are looked at for one page of operations, whether they match or not.
pub const OPERATIONS_SEARCHED_MAX: usize = 10_000;
/// Ids of objects that an error names to a caller; the rest is for operators.
pub const FOUND_IDS_SHOWN_MAX: usize = 10;
/// Audit records that are read at once while searching.
pub const AUDIT_READ_RECORDS: usize = 256;
/// Bytes of audit records that are read at once by a name, beyond the first record.
pub const AUDIT_READ_BYTES_MAX: usize = 1 << 20;
/// Audit records in one message of an export; a record has some 1 KB.
pub const AUDIT_EXPORT_RECORDS: usize = 256;
/// Audit records that are looked at for one page, whether they match or not.
pub const AUDIT_PAGE_SEARCHED_MAX: usize = 10_000;
/// Audit records that one name brings into a trace.
pub const TRACE_RECORDS_MAX: usize = 500;
/// Events that one name brings into a trace.
pub const TRACE_EVENTS_MAX: usize = 200;
/// Bytes of audit records, or of events, that one name brings into a trace, beyond the first.
pub const TRACE_BYTES_MAX: usize = 4 << 20;
/// Orders that one trace is about.
pub const TRACE_ORDERS_MAX: usize = 20;
/// Largest set of an issuer's keys, in bytes.
pub const JWKS_BYTES_MAX: usize = 256 * 1024;
/// Most keys in it.
pub const JWKS_KEYS_MAX: usize = 100;
/// How long fetching it may take, in milliseconds; calls that need it wait.
pub const JWKS_FETCH_MS_MAX: u64 = 5_000;
/// How often it is fetched anew, in milliseconds.
pub const JWKS_REFRESH_MS: u64 = 300_000;
/// How long it is not fetched again for a key that it lacks, or after a failure, in milliseconds.
pub const JWKS_COOL_DOWN_MS: u64 = 30_000;
/// How long keys are trusted that could not be fetched anew, in milliseconds.
pub const JWKS_STALE_MS_MAX: u64 = 24 * 3_600_000;
/// How far an issuer's clock and ours may differ when a token's times are judged, in seconds.
pub const JWT_LEEWAY_S: i64 = 30;
/// API tokens of all callers, those that ended included.
pub const TOKENS_MAX: usize = 2_000;
/// How long a token is listed after it ended, in milliseconds: 90 days.
pub const TOKEN_KEPT_MS: i64 = 90 * 24 * 3_600_000;
/// How often files of keys are looked at and ended tokens are looked for, in milliseconds.
pub const IDENTITY_TICK_MS: u64 = 1_000;
/// Movements of budgets that are read at once at a start.
pub const BUDGET_PAGE_MOVEMENTS: usize = 10_000;
