//! The Task API as one program.
