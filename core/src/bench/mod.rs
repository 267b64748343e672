//! Times an engine: the same measurements natively and in a page, told in the same words ([`report`]).

pub mod report;
