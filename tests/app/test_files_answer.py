"""The answer for many files."""

import html

from bhi_utils.app import files_answer


def test_a_name_that_a_spreadsheet_would_run_is_harmless_in_the_tables_that_the_page_saves():
    answers = {"file": ["=cmd.png"], "predicted_label": [1], "probability": [-0.5]}
    details = {"problem": "", "answers": answers, "rejected": {"file": ["@x.png"], "reason": ["-"]}, "threshold_calibrated": 0.4}
    said = html.unescape(files_answer.shown(details, "en"))
    assert "\n'=cmd.png,1,-0.5\n" in said and "\n'@x.png,'-\n" in said
