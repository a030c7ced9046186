"""The version of the package, that of the workspace it lies in; a test compares them."""

VERSION = "0.1.0"
