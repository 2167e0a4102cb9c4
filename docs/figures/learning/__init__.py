"""Does a model with trees learn? Small models of the same data, steps and seeds with trees and with controls."""
