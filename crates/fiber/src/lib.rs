//! Warren's fiber.
