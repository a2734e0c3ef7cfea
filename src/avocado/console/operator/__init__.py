"""The operator's pages: the business, the models, the money, and that all of it is true.

Which of the operator's people may open which page stands in ``doors``; how a change asks first and
is put on record, in ``acting``.
"""

from avocado.console.operator import (
    auditing,
    caring,
    customers,
    invoicing,
    money,
    overview,
    paying,
    planning,
    proving,
    releasing,
    scorecards,
    selling,
    settings,
    training,
)

PAGES = tuple(
    each.PAGES
    for each in (
        overview,
        money,
        customers,
        caring,
        invoicing,
        paying,
        planning,
        training,
        scorecards,
        releasing,
        selling,
        auditing,
        proving,
        settings,
    )
)
