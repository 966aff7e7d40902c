"""The words: columns, tables, drop reasons, manifests and strict settings that every room shares."""
