//! Bytes: layers, root file systems, stock templates, scratch disks.
