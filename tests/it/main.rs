//! The integration tests: gateway and sandbox in one process.
