//! The RPCs that are more than one request to Stripe: each is written out in a module named after its service.

pub mod admin_service;
pub mod audit_service;
pub mod budget_service;
pub mod event_service;
pub mod feed_service;
pub mod file_service;
pub mod operation_service;
pub mod subscription_service;
pub mod token_service;
