//! Who may decide, and what several agents share.
