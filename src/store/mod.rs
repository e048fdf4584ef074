//! The only files that name `hdf5::`.

pub mod table;
