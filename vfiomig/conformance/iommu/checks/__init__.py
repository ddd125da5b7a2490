"""One module a section of specs/iommu, one function a rule.

A check makes containers, converses with them and yields what differs from the rule;
the first difference is the finding.  None of them looks behind the ioctls, but for the
memory that logs take (`Container.log_bytes`).
"""
