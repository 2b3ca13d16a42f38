//! A stateful Stripe for development and tests. It must share nothing with the gateway but `domain`, so that a shared
//! mistake shows.
