"""Orders about many: what selects the tasks or dead letters that are meant, and the care it takes.

Times of day are UTC.
"""

from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar

from pydantic import AwareDatetime, Field, model_validator

from orchestrator.models import MAX_PATTERN_BYTES, Model
from orchestrator.values import Flag, Priority

# What the engine can compare times with, whatever their zone.
_EARLIEST, _LATEST = datetime(1971, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)

FilterText = Annotated[
    str, Field(min_length=1, max_length=MAX_PATTERN_BYTES, pattern=r"^[^\x00-\x1f\x7f]*$")
]
Moment = Annotated[AwareDatetime, Field(gt=_EARLIEST, lt=_LATEST)]


class Selection(Model):
    """What selects by the attributes of tasks; None selects all."""

    agent: FilterText | None = None
    pattern: FilterText | None = None
    tenant: FilterText | None = None
    priority: Priority | None = None
    batch: FilterText | None = Field(default=None, description="Items of this batch")

    @property
    def selects_all(self) -> bool:
        """Whether no field selects."""
        return not self.model_dump(exclude_none=True)


class ManyRequest(Model):
    """The body of an order about many; the filter's fields may also stand beside the others.

    A subclass gives ``filter`` its own type, and says in ``EVERYTHING`` what ``all`` means.
    """

    EVERYTHING: ClassVar[str]

    filter: Selection
    all: Flag = Field(default=False, description="Everything, where no field selects")
    dry_run: Flag = Field(default=False, description="Only count")
    reason: str = Field(default="", max_length=500)
    by: str = Field(default="", max_length=100)

    @model_validator(mode="before")
    @classmethod
    def _gathered(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        fields = type(cls.model_fields["filter"].default).model_fields
        beside = {name: given[name] for name in fields if name in given}
        if not beside:
            return given
        if "filter" in given:
            raise ValueError("name what selects in filter or beside it, not in both")
        rest = {name: value for name, value in given.items() if name not in beside}
        return rest | {"filter": beside}

    @model_validator(mode="after")
    def _deliberate(self) -> "ManyRequest":
        if self.filter.selects_all and not self.all:
            raise ValueError(f'say what to select, or {{"all": true}} for {self.EVERYTHING}')
        if self.all and not self.filter.selects_all:
            raise ValueError("all is true, but a filter selects; leave one of them out")
        return self
