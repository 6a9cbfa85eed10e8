"""Runs the suites that are named, or all, and ends with the line by which tests/run.sh counts."""
import os
import sys
import unittest

if __name__ == "__main__":
    here = os.path.dirname(os.path.abspath(__file__))
    loader = unittest.TestLoader()
    if sys.argv[1:]:
        tests = loader.loadTestsFromNames(sys.argv[1:])
    else:
        tests = loader.discover(here)
    result = unittest.TextTestRunner(verbosity=2).run(tests)
    failed = [test for test, _ in result.failures + result.errors] + result.unexpectedSuccesses
    bad = len({getattr(test, "test_case", test) for test in failed})  # of a sub-test: the test
    print(f"Synthesis: Tested: {result.testsRun} | Passing: {result.testsRun - bad} | Failing: {bad}")
    sys.exit(bad != 0 or result.testsRun == 0)
