#pragma once
namespace infopt {
inline constexpr const char* kVersion = "0.1.0";
}
