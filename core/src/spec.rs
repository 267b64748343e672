#![doc = include_str!("../SPEC.md")]
#![allow(rustdoc::broken_intra_doc_links, reason = "words in brackets are sources and not links")]
#![allow(clippy::doc_lazy_continuation, reason = "the document is wrapped for people who read it as a file")]
