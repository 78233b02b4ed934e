"""A plugin whose import fails, as one does that was written for another version of what it needs."""

from __future__ import annotations

raise ImportError("cannot import name 'gone' from 'a_library_that_moved_on'")
