"""The audit: proves from the topics alone that every acknowledged order came to one final state, or shows what did not.

report = await audit(settings)
assert report.ok, report.violations
"""

from ecosystem.audit.formats import as_json, show
from ecosystem.audit.report import AuditError, Kind, Report, Violation
from ecosystem.audit.run import audit

__all__ = ["AuditError", "Kind", "Report", "Violation", "as_json", "audit", "show"]
